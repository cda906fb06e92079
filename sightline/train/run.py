"""The training stage: from a model and pairs on disk to an adapter, a log of its steps and a manifest.

It owns the files and the progress bars; the parts are put together by `preparation`, and how a step is done is `loop`.
A run that was killed goes on from its last checkpoint when started again, and one that has finished is left alone.
"""

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.progress import Progress

from sightline.data.fingerprint import FINGERPRINT, Fingerprint, fingerprint, write_fingerprint
from sightline.data.preference_dataset import read_pairs
from sightline.data.progress import open_bars
from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.models.adapters import save_adapter
from sightline.models.full import save_model
from sightline.models.vlm import VLM, hit_rate_of
from sightline.records.manifest import MANIFEST, Stage
from sightline.records.rows import Pair
from sightline.records.store import append_rows
from sightline.train.admission import resolve_images
from sightline.train.checkpoint import load_checkpoint, save_checkpoint
from sightline.train.config import TrainConfig
from sightline.train.live import looking_on
from sightline.train.log import LOG_NAME, cut_log, read_log
from sightline.train.loop import StepSettings, TrainState, fit
from sightline.train.monitors import Watch
from sightline.train.optimizer import make_schedule
from sightline.train.preparation import VIEWS, Job, Prepared, device_of, passes, prepare
from sightline.train.processes import joined_processes
from sightline.train.rl.source import UNSCORED
from sightline.train.sharding import plainly, whole_state

ADAPTER, MODEL, CHECKPOINT = "adapter", "model", "checkpoint"


def train(model_dir: Path, pairs_dir: Path, out_dir: Path, config: TrainConfig, seed: int) -> Path:
    """Train the model in `model_dir`, or an adapter for it, on the pairs in `pairs_dir`; returns `out_dir`.

    By rewards (`config.rl`), it is the prompts in `pairs_dir` that are trained on, of pairs or of samples.

    Writes `adapter/` (PEFT), or `model/` where the whole model was trained, `log.jsonl` (a `StepRecord` a line),
    `trained_on.npz` (by which an evaluation knows leaks) and `manifest.json`; `checkpoint/` is there while the run is
    unfinished. The same arguments on the same machine give the same weights, interrupted or not.

    Raises:
        InputError: no such model or pairs, no pair left to train on, `out_dir` of another run, a loss that is not
            finite.
    """
    pairs = [] if config.rl is not None else [resolve_images(pair, pairs_dir) for pair in read_pairs(pairs_dir)]
    if not pairs and config.rl is None:
        raise InputError(f"{pairs_dir} holds no pairs; build some first.")
    with joined_processes(device_of(config)) as processes, open_bars(shown=processes.is_first) as bars:
        job = Job(model_dir, pairs_dir, out_dir, config, seed, processes)
        # A new directory is claimed after model and pairs have proved good, so that a mistake in them claims none.
        known = processes.first((out_dir / MANIFEST).exists)
        prepared = None if known else processes.together(lambda: prepare(job, pairs, bars))
        stage = processes.first(
            lambda: Stage.open(out_dir, "train", config, {"model": model_dir, "pairs": pairs_dir}, seed)
        )
        if not stage.done:
            prepared = prepared or processes.together(lambda: prepare(job, pairs, bars))
            processes.first(lambda: write_fingerprint(out_dir / FINGERPRINT, _fingerprint(job, pairs)))
            _train_prepared(prepared, job, bars)
            if processes.is_first:
                _finish(stage, job, prepared)
        for folder in (CHECKPOINT, VIEWS):  # where it was done: the run was killed between its last two acts
            processes.first(lambda: shutil.rmtree(out_dir / folder, ignore_errors=True))  # noqa: B023 - run at once
    return out_dir


def _train_prepared(prepared: Prepared, job: Job, bars: Progress) -> None:
    """All the steps that are left, then the weights."""
    state, processes = prepared.state, job.processes
    if processes.together(lambda: load_checkpoint(state, job.out / CHECKPOINT)):
        bars.console.print(f"going on after step {state.step} of {state.source.steps}")
    processes.first(lambda: cut_log(job.out / LOG_NAME, state.step))
    _run_steps(prepared, job, bars)
    _save_trained(state, job.out)


def _finish(stage: Stage, job: Job, prepared: Prepared) -> None:
    stage.finish(
        counts=_counts(job.out, prepared),
        dropped=prepared.dropped | _left_out(job.out),
        numbers=_numbers(job.out, prepared.state.vlm),
        warnings=Watch(job.config.monitors, tuple(read_log(job.out / LOG_NAME))).lines,
    )


def _fingerprint(job: Job, pairs: Sequence[Pair]) -> Fingerprint:
    """Of the pairs, whose image paths are absolute, or of the prompts where there are none."""
    if pairs:
        return fingerprint((map(Path, pair.images), pair.prompt) for pair in pairs)
    folder = samples_file(job.pairs).parent.absolute()
    rows = read_samples(job.pairs)
    return fingerprint(([folder / image for image in row.images], row.prompt) for row in rows)


def _run_steps(prepared: Prepared, job: Job, bars: Progress) -> None:
    state, config, out_dir = prepared.state, job.config, job.out
    steps = state.source.steps
    settings = StepSettings(
        batch_size=passes(config, state.vlm, prepared.mean_tokens),
        schedule=make_schedule(config.optim, steps),
        clip_norm=config.optim.clip_norm,
        seed=job.seed,
    )
    is_first = job.processes.is_first
    onlookers = looking_on(out_dir, config, bars, done=state.step, total=steps) if is_first else nullcontext()
    with onlookers as look:
        for record in fit(state, settings):
            if is_first:
                append_rows(out_dir / LOG_NAME, [record])
            if state.step % config.checkpoint_every == 0:
                save_checkpoint(state, out_dir / CHECKPOINT)
            if look is not None:
                look(record)


def _save_trained(state: TrainState[Any], out_dir: Path) -> None:
    """Save under another name first: `adapter/` or `model/` is whole from the moment it exists."""
    adapted = isinstance(state.vlm.model, PeftModel)
    # Put together by all processes where they are sharded; the first one writes.
    weights = None if state.within is plainly else whole_state(state.vlm.model, trained_only=adapted)
    if not state.processes.is_first:
        return
    directory = out_dir / (ADAPTER if adapted else MODEL)
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    (save_adapter if adapted else save_model)(state.vlm, unfinished, weights)
    state.task.save(unfinished)
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)


def _counts(out_dir: Path, prepared: Prepared) -> dict[str, int]:
    rows = list(read_log(out_dir / LOG_NAME))
    tokens = sum(row.pairs * ((row.chosen_tokens or 0.0) + (row.rejected_tokens or 0.0)) for row in rows)
    tokens += sum(row.numbers.get("answers", 0.0) * row.numbers.get("answer_tokens", 0.0) for row in rows)
    return {
        prepared.unit: prepared.rows,
        f"{prepared.unit}_trained_on": prepared.rows - sum(prepared.dropped.values()),
        "steps": len(rows),
        "answer_tokens": round(tokens),
    }


def _left_out(out_dir: Path) -> dict[str, int]:
    """Answers of the policy that no judge scored, over all steps."""
    unscored = sum(row.numbers.get(UNSCORED, 0.0) for row in read_log(out_dir / LOG_NAME))
    return {"unscored answers": round(unscored)} if unscored else {}


def _numbers(out_dir: Path, vlm: VLM) -> dict[str, float]:
    """How the run began and ended; the seconds of its steps alone, whatever was lost to kills; use of the cache."""
    rows = list(read_log(out_dir / LOG_NAME))
    seconds = sum(row.seconds for row in rows)
    rewards = [row.numbers["reward"] for row in rows if "reward" in row.numbers]
    ends = {"first_reward": rewards[0], "last_reward": rewards[-1]} if rewards else {}
    return {"first_loss": rows[0].loss, "last_loss": rows[-1].loss, **ends, "step_seconds": seconds, **hit_rate_of(vlm)}
