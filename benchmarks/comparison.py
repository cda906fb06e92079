"""Sightline against TRL on one job: alternating runs, and their ratios."""

from typing import Any

from common import Job, Runs, median, versions

Run = dict[str, Any]
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2}


def compare(runs: Runs, job: Job, prepared: Run, *, repeat: int, full: bool) -> dict[str, Any]:
    """The ratios, with the numbers behind them.

    Speeds are pairs a second of the whole call, TRL's for three epochs extrapolated from one unless `full`;
    `speedup_later_steps` is that of a step alone once Sightline has kept what it keeps. The ratio of memory is
    Sightline's over TRL's, each the peak less what was there before training: imports and weights.
    """
    ours, ours_3, theirs, theirs_3 = ([] for _ in range(4))
    for _ in range(repeat):
        ours.append(runs.run(job, side="sightline", epochs=1))
        theirs.append(runs.run(job, side="trl", epochs=1))
        ours_3.append(runs.run(job, side="sightline", epochs=3))
        if full:
            theirs_3.append(runs.run(job, side="trl", epochs=3))
    seconds, seconds_3, their_seconds = _seconds(ours), _seconds(ours_3), _seconds(theirs)
    their_seconds_3 = _seconds(theirs_3) if full else median(_three_epochs(run) for run in theirs)
    steps = len(ours[0]["losses"])
    later = median(second for run in ours_3 for second in run["step_seconds"][steps:])
    weights = prepared["parameters"] * WEIGHT_BYTES[job.dtype]
    pairs = prepared["pairs"]
    return {
        "speedup_1_epoch": their_seconds / seconds,
        "speedup_3_epochs": their_seconds_3 / seconds_3,
        "speedup_later_steps": median(second for run in theirs for second in run["step_seconds"]) / later,
        "trl_3_epochs": "measured" if full else "extrapolated",
        "peak_memory_ratio": _extra(ours, weights) / _extra(theirs, weights),
        "max_loss_difference": max(_difference(ours + ours_3, theirs), _difference(ours_3, theirs_3)),
        "losses": ours_3[0]["losses"],
        "trl_losses": (theirs_3 or theirs)[0]["losses"],
        "sightline": _side(ours, weights, pairs / seconds, 3 * pairs / seconds_3),
        "trl": _side(theirs, weights, pairs / their_seconds, 3 * pairs / their_seconds_3),
        "settings": {
            **describe(job, prepared, ours[0]),
            "trl_gradient_checkpointing": job.trl_gradient_checkpointing,
        },
        "versions": versions(),
    }


def describe(job: Job, prepared: Run, ours: Run) -> dict[str, Any]:
    """The settings of the runs."""
    return {
        "model": f"{job.kind} {job.size}",
        "parameters": prepared["parameters"],
        "pairs": prepared["pairs"],
        "batch": job.batch,
        "answer_tokens": median(ours["tokens"]),
        "dtype": job.dtype,
        "lora_rank": job.rank,
        "lr": job.lr,
    }


def _seconds(of: list[Run]) -> float:
    return median(run["seconds"] for run in of)


def _three_epochs(run: Run) -> float:
    return float(run["seconds"] + 2 * len(run["step_seconds"]) * median(run["step_seconds"]))


def _extra(of: list[Run], weights: int) -> float:
    return median(run["peak_bytes"] - run["base_bytes"] - weights for run in of)


def _side(of: list[Run], weights: int, speed: float, speed_3: float) -> dict[str, Any]:
    """Details of one side's runs of one epoch."""
    return {
        "pairs_per_second_1_epoch": speed,
        "pairs_per_second_3_epochs": speed_3,
        "seconds": _seconds(of),
        "step_seconds": median(second for run in of for second in run["step_seconds"]),
        "peak_mb": median(run["peak_bytes"] for run in of) / 1e6,
        "peak_beside_weights_mb": _extra(of, weights) / 1e6,
    }


def _difference(ours: list[Run], theirs: list[Run]) -> float:
    """The largest difference between losses of the same step, up to the end of the shorter run."""
    steps = (zip(a["losses"], b["losses"], strict=False) for a in ours for b in theirs)
    return max((abs(a - b) for pairs in steps for a, b in pairs), default=0.0)
