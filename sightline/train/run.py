"""The training stage: from a model and pairs on disk to an adapter, a log of its steps and a manifest.

It owns the files and the progress bars; the parts are put together by `preparation`, and how a step is done is `loop`.
A run that was killed goes on from its last checkpoint when started again, and one that has finished is left alone.
"""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from peft import PeftModel
from rich.progress import Progress

from sightline.data.fingerprint import FINGERPRINT, Fingerprint, compute_fingerprint, write_fingerprint
from sightline.data.terminal import open_bars
from sightline.errors import InputError
from sightline.models.adapters import save_adapter, save_model
from sightline.models.device import resolve_device
from sightline.models.vlm import cache_numbers
from sightline.records.manifest import MANIFEST, Stage
from sightline.records.rows import Pair, Sample
from sightline.records.store import append_rows
from sightline.train.checkpoint import load_checkpoint, save_checkpoint
from sightline.train.config import TrainConfig
from sightline.train.config.source import MixedConfig
from sightline.train.data import Data, read_data, read_prompts
from sightline.train.log import LOG_NAME, cut_log, read_log
from sightline.train.loop import StepSettings, TrainState, fit
from sightline.train.monitors import TrainMonitor
from sightline.train.observers import looking_on
from sightline.train.optimizer import make_schedule
from sightline.train.processes import joined_processes, plainly, whole_state
from sightline.train.rl.source import UNSCORED
from sightline.train.setup import VIEWS, Prepared, TrainJob, passes, prepare
from sightline.train.sources import Paused, Source
from sightline.train.stream_source import share_name

ADAPTER, MODEL, CHECKPOINT = "adapter", "model", "checkpoint"


def train(
    model_dir: Path, pairs_dir: Path | None, out_dir: Path, config: TrainConfig, seed: int, samples: Path | None = None
) -> Path:
    """Train the model in `model_dir`, or an adapter for it, on the pairs in `pairs_dir`; returns `out_dir`.

    `samples` are the prompts of online pairs, or what is known of the prompts of `pairs_dir`. By rewards (`config.rl`),
    it is prompts that are trained on, of `samples` or of `pairs_dir`.

    Writes `adapter/` (PEFT), or `model/` where the whole model was trained, `log.jsonl` (a `StepRecord` a line),
    `trained_on.npz` (by which an evaluation knows leaks) and `manifest.json`; `checkpoint/` is there while the run is
    unfinished. The same arguments on the same machine give the same weights, interrupted or not.

    Raises:
        InputError: no such model or pairs, no pair left to train on, `out_dir` of another run, a loss that is not
            finite or explodes, a judge that is down; the last leaves a checkpoint from which the same call goes on.
    """
    by_rewards = config.rl is not None
    with joined_processes(resolve_device(config.device)) as processes, open_bars(shown=processes.is_first) as bars:
        job = TrainJob(model_dir, pairs_dir, out_dir, config, seed, samples, processes)
        data = read_prompts(job.prompts) if by_rewards else read_data(pairs_dir, samples, config)
        # A new directory is claimed after model and pairs have proved good, so that a mistake in them claims none.
        known = processes.first((out_dir / MANIFEST).exists)
        prepared = None if known else processes.together(lambda: prepare(job, data, bars))
        stage = processes.first(lambda: Stage.open(out_dir, "train", config, job.inputs, seed))
        if not stage.done:
            prepared = prepared or processes.together(lambda: prepare(job, data, bars))
            processes.first(lambda: write_fingerprint(out_dir / FINGERPRINT, _fingerprint(data)))
            _train_prepared(prepared, job, bars)
            if processes.is_first:
                _finish(stage, job, prepared)
        for folder in (CHECKPOINT, VIEWS):  # where it was done: the run was killed between its last two acts
            processes.first(lambda: shutil.rmtree(out_dir / folder, ignore_errors=True))  # noqa: B023 - run at once
    return out_dir


def _train_prepared(prepared: Prepared, job: TrainJob, bars: Progress) -> None:
    """All the steps that are left, then the weights."""
    state, processes = prepared.state, job.processes
    if processes.together(lambda: load_checkpoint(state, job.out / CHECKPOINT)):
        bars.console.print(f"going on after step {state.step} of {state.source.steps}")
    processes.first(lambda: cut_log(job.out / LOG_NAME, state.step))
    with _closed_after(state.source, bars):
        _run_steps(prepared, job, bars)
    if not state.step:
        raise InputError(
            f"no step had a pair to train on, dropped were {_dropped(prepared, job.out)}; sample more, or hotter."
        )
    if state.validation is not None:
        state.validation.put_back(state.trainable())
    _save_trained(state, job.out)


@contextmanager
def _closed_after(source: Source[Any], bars: Progress) -> Iterator[None]:
    """At the end, early or not, the source lets go of its servers; one that is gone spoils neither."""
    try:
        yield
    except BaseException:
        with suppress(InputError):  # why the run ends is what to tell
            source.close()
        raise
    try:
        source.close()
    except InputError as error:
        bars.console.print(f"warning: {error}", markup=False, highlight=False, soft_wrap=True)


def _finish(stage: Stage, job: TrainJob, prepared: Prepared) -> None:
    stage.finish(
        counts=_counts(job.out, prepared),
        dropped=_dropped(prepared, job.out),
        numbers=_numbers(job.out, prepared.state) | _shares(job),
        warnings=TrainMonitor(job.config.monitors, tuple(read_log(job.out / LOG_NAME))).lines,
    )


def _dropped(prepared: Prepared, out_dir: Path) -> dict[str, int]:
    """At the door, and since then."""
    return dict(Counter(prepared.dropped) + Counter(prepared.state.source.dropped()) + Counter(_left_out(out_dir)))


def _fingerprint(data: Data) -> Fingerprint:
    """Of the pairs, or of the prompts where there are none."""
    rows: Sequence[Pair | Sample] = data.pairs or data.samples
    return compute_fingerprint((map(Path, row.images), row.prompt) for row in rows)


def _run_steps(prepared: Prepared, job: TrainJob, bars: Progress) -> None:
    state, config, out_dir = prepared.state, job.config, job.out
    steps = state.source.steps
    settings = StepSettings(
        batch_size=passes(config, state.vlm, prepared.mean_tokens),
        schedule=make_schedule(config.optim, steps),
        clip_norm=config.optim.clip_norm,
        seed=job.seed,
        guard=config.guard,
    )
    is_first = job.processes.is_first
    onlookers = looking_on(out_dir, config, bars, done=state.step, total=steps) if is_first else nullcontext()
    with onlookers as look:
        try:
            for record in fit(state, settings):
                if is_first:
                    append_rows(out_dir / LOG_NAME, [record])
                if state.step % config.checkpoint_every == 0:
                    save_checkpoint(state, out_dir / CHECKPOINT)
                if look is not None:
                    look(record)
        except Paused as error:
            save_checkpoint(state, out_dir / CHECKPOINT)
            raise InputError(
                f"{str(error).rstrip('.')}; nothing is lost, the same command goes on from here"
            ) from error


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
    held = 0 if prepared.state.validation is None else len(prepared.state.validation.items)
    counts = {
        prepared.unit: prepared.rows,
        f"{prepared.unit}_trained_on": prepared.rows - sum(prepared.dropped.values()) - held,
        "steps": len(rows),
        "answer_tokens": round(tokens),
    }
    return counts | ({"pairs_held_out": held} if held else {})


def _left_out(out_dir: Path) -> dict[str, int]:
    """Answers of the policy that no judge scored, over all steps."""
    unscored = sum(row.numbers.get(UNSCORED, 0.0) for row in read_log(out_dir / LOG_NAME))
    return {"unscored answers": round(unscored)} if unscored else {}


def _shares(job: TrainJob) -> dict[str, float]:
    """Of a mixture: what share of all pairs came from its first stream."""
    source = job.config.source
    if not isinstance(source, MixedConfig):
        return {}
    rows, first = list(read_log(job.out / LOG_NAME)), source.first.name
    pairs = sum(row.pairs for row in rows)
    return {share_name(first): sum(row.streams.get(first, {}).get("pairs", 0.0) for row in rows) / pairs}


def _numbers(out_dir: Path, state: TrainState[Any]) -> dict[str, float]:
    """How the run began and ended; the seconds of its steps alone, whatever was lost to kills; use of the cache."""
    rows = list(read_log(out_dir / LOG_NAME))
    seconds = sum(row.seconds for row in rows)
    rewards = [row.numbers["reward"] for row in rows if "reward" in row.numbers]
    ends = {"first_reward": rewards[0], "last_reward": rewards[-1]} if rewards else {}
    numbers = {"first_loss": rows[0].loss, "last_loss": rows[-1].loss, **ends, "step_seconds": seconds}
    if state.validation is not None and state.validation.best is not None:
        best, measure = state.validation.best, state.validation.config.measure
        numbers[f"best_validation_{measure}"] = best if measure == "loss" else -best
        numbers["best_step"] = float(state.validation.best_step)
    return numbers | cache_numbers(state.vlm)
