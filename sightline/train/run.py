"""The training stage: from a model and pairs on disk to an adapter, a log of its steps and a manifest.

It owns the files and the progress bars; the parts are put together by `preparation`, and how a step is done is `loop`.
A run that was killed goes on from its last checkpoint when started again, and one that has finished is left alone.
"""

import shutil
from pathlib import Path
from typing import Any

from rich.progress import Progress

from sightline.data.preference_dataset import read_pairs
from sightline.data.progress import open_bars
from sightline.errors import InputError
from sightline.models.adapters import save_adapter
from sightline.models.vlm import VLM, hit_rate_of
from sightline.records.manifest import MANIFEST, Stage
from sightline.records.store import append_rows
from sightline.train.admission import resolve_images
from sightline.train.checkpoint import load_checkpoint, save_checkpoint
from sightline.train.config import TrainConfig
from sightline.train.live import looking_on
from sightline.train.log import LOG_NAME, cut_log, read_log
from sightline.train.loop import StepSettings, TrainState, fit
from sightline.train.monitors import Watch
from sightline.train.optimizer import make_schedule
from sightline.train.preparation import Prepared, prepare

PASS_TOKENS = {"cpu": 2048, "cuda": 16384}  # more at a time costs memory and saves no time
ADAPTER, CHECKPOINT = "adapter", "checkpoint"


def train(model_dir: Path, pairs_dir: Path, out_dir: Path, config: TrainConfig, seed: int) -> Path:
    """Train an adapter for the model in `model_dir` on the pairs in `pairs_dir`; returns `out_dir`.

    Writes `adapter/` (PEFT), `log.jsonl` (a `StepRecord` a line) and `manifest.json`; `checkpoint/` is there while the
    run is unfinished. The same arguments on the same machine give the same adapter, interrupted or not.

    Raises:
        InputError: no such model or pairs, no pair left to train on, `out_dir` of another run, a loss that is not
            finite.
    """
    pairs = [resolve_images(pair, pairs_dir) for pair in read_pairs(pairs_dir)]
    if not pairs:
        raise InputError(f"{pairs_dir} holds no pairs; build some first.")
    with open_bars() as bars:
        # A new directory is claimed after model and pairs have proved good, so that a mistake in them claims none.
        prepared = None if (out_dir / MANIFEST).exists() else prepare(model_dir, pairs, config, seed, bars)
        stage = Stage.open(out_dir, "train", config, {"model": model_dir, "pairs": pairs_dir}, seed)
        if stage.done:
            shutil.rmtree(out_dir / CHECKPOINT, ignore_errors=True)  # the run was killed between its last two acts
            return out_dir
        prepared = prepared or prepare(model_dir, pairs, config, seed, bars)
        state = prepared.state
        if load_checkpoint(state, out_dir / CHECKPOINT):
            bars.console.print(f"going on after step {state.step} of {state.source.steps}")
        cut_log(out_dir / LOG_NAME, state.step)
        _run_steps(prepared, out_dir, config, seed, bars)
    _replace_adapter(state, out_dir / ADAPTER)
    stage.finish(
        counts=_counts(out_dir, len(pairs), prepared.dropped),
        dropped=prepared.dropped,
        numbers=_numbers(out_dir, state.vlm),
        warnings=Watch(config.monitors, tuple(read_log(out_dir / LOG_NAME))).lines,
    )
    shutil.rmtree(out_dir / CHECKPOINT, ignore_errors=True)
    return out_dir


def _run_steps(prepared: Prepared, out_dir: Path, config: TrainConfig, seed: int, bars: Progress) -> None:
    state = prepared.state
    budget = config.pass_tokens or PASS_TOKENS[state.vlm.device.type]
    steps = state.source.steps
    settings = StepSettings(
        batch_size=min(config.batch_size, max(1, int(budget / prepared.mean_tokens))),
        schedule=make_schedule(config.optim, steps),
        clip_norm=config.optim.clip_norm,
        seed=seed,
    )
    with looking_on(out_dir, config, bars, done=state.step, total=steps) as look:
        for record in fit(state, settings):
            append_rows(out_dir / LOG_NAME, [record])
            if state.step % config.checkpoint_every == 0:
                save_checkpoint(state, out_dir / CHECKPOINT)
            look(record)


def _replace_adapter(state: TrainState[Any], directory: Path) -> None:
    """Save under another name first: `adapter/` is whole from the moment it exists."""
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_adapter(state.vlm, unfinished)
    state.task.save(unfinished)
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)


def _counts(out_dir: Path, read: int, dropped: dict[str, int]) -> dict[str, int]:
    rows = list(read_log(out_dir / LOG_NAME))
    tokens = sum(row.pairs * ((row.chosen_tokens or 0.0) + (row.rejected_tokens or 0.0)) for row in rows)
    return {
        "pairs": read,
        "pairs_trained_on": read - sum(dropped.values()),
        "steps": len(rows),
        "answer_tokens": round(tokens),
    }


def _numbers(out_dir: Path, vlm: VLM) -> dict[str, float]:
    """How the run began and ended; the seconds of its steps alone, whatever was lost to kills; use of the cache."""
    rows = list(read_log(out_dir / LOG_NAME))
    seconds = sum(row.seconds for row in rows)
    return {"first_loss": rows[0].loss, "last_loss": rows[-1].loss, "step_seconds": seconds, **hit_rate_of(vlm)}
