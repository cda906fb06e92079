"""The training stage: from a model and pairs on disk to an adapter, a log of its steps and a manifest.

It owns the files and the progress bars; `setup` assembles the parts, and `loop` runs the steps. A killed run resumes
from its last checkpoint when started again; a finished one is left unchanged.
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
from sightline.models.processes import join_processes
from sightline.models.spec import ModelSpec, to_spec
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
from sightline.train.observers import observe_run
from sightline.train.optimizer import make_schedule
from sightline.train.processes import full_state, run_directly
from sightline.train.rl.source import UNSCORED
from sightline.train.setup import VIEWS, Prepared, TrainJob, items_per_pass, prepare, settle_format
from sightline.train.sources import Paused, Source
from sightline.train.stream_source import share_name

ADAPTER, MODEL, CHECKPOINT = "adapter", "model", "checkpoint"


def train(
    model: ModelSpec | str | Path,
    pairs_dir: Path | None,
    out_dir: Path,
    config: TrainConfig,
    seed: int,
    samples: Path | None = None,
) -> Path:
    """Train a model, or an adapter for it, on the pairs in `pairs_dir`; returns `out_dir`.

    `samples` are the prompts of online pairs, or add references and truth to the prompts of `pairs_dir`. Training by
    rewards (`config.rl`) uses the prompts of `samples` or of `pairs_dir`.

    Writes `adapter/` (PEFT), or `model/` if the whole model was trained, `log.jsonl` (a `StepRecord` per line),
    `trained_on.npz` (from which an evaluation detects contamination) and `manifest.json`; `checkpoint/` exists while
    the run is unfinished. The same arguments on the same machine give the same weights, interrupted or not.

    Raises:
        InputError: no such model or pairs, no pair left to train on, `out_dir` belongs to another run, a loss is not
            finite or explodes, or a judge is down; in the last case a checkpoint remains and the same call resumes.
    """
    by_rewards = config.rl is not None
    spec, config = settle_format(to_spec(model), config)
    with join_processes(spec.device) as processes, open_bars(shown=processes.is_first) as bars:
        job = TrainJob(spec, pairs_dir, out_dir, config, seed, samples, processes)
        data = read_prompts(job.prompts) if by_rewards else read_data(pairs_dir, samples, config)
        # A new directory is claimed after model and pairs are checked, so that an error in them claims none.
        known = processes.on_first((out_dir / MANIFEST).exists)
        prepared = None if known else processes.on_all(lambda: prepare(job, data, bars))
        stage, is_done = _open_stage(job)
        if not is_done:
            prepared = prepared or processes.on_all(lambda: prepare(job, data, bars))
            processes.on_first(lambda: write_fingerprint(out_dir / FINGERPRINT, _fingerprint(data)))
            _train_prepared(prepared, job, bars)
            if stage is not None:
                _finish(stage, job, prepared)
        for folder in (CHECKPOINT, VIEWS):  # may remain if a finished run was killed before its cleanup
            processes.on_first(lambda: shutil.rmtree(out_dir / folder, ignore_errors=True))  # noqa: B023 - run at once
    return out_dir


def _open_stage(job: TrainJob) -> tuple[Stage | None, bool]:
    """The stage, in the first process alone, which writes it; and in all processes whether it is complete."""
    opened: list[Stage] = []

    def open_first() -> bool:  # the stage has a lock and so cannot be sent to the other processes
        opened.append(Stage.open(job.out, "train", job.config, job.inputs, job.seed))
        return opened[0].done

    is_done = job.processes.on_first(open_first)
    return opened[0] if opened else None, is_done


def _train_prepared(prepared: Prepared, job: TrainJob, bars: Progress) -> None:
    """Run the remaining steps, then save the weights."""
    state, processes = prepared.state, job.processes
    if processes.on_all(lambda: load_checkpoint(state, job.out / CHECKPOINT)):
        bars.console.print(f"resuming after step {state.step} of {state.source.steps}")
    processes.on_first(lambda: cut_log(job.out / LOG_NAME, state.step))
    with _closing(state.source, bars):
        _run_steps(prepared, job, bars)
    if not state.step:
        reasons = ", ".join(f"{count} {reason}" for reason, count in _dropped_counts(prepared, job.out).items())
        raise InputError(
            f"no training pairs were produced (dropped: {reasons}); sample more answers or raise the temperature"
        )
    if state.validation is not None:
        state.validation.restore_best(state.trainable())
    _save_trained(state, job.out)


@contextmanager
def _closing(source: Source[Any], bars: Progress) -> Iterator[None]:
    """Close the source at the end, early or not; a server that is gone does not fail the run."""
    try:
        yield
    except BaseException:
        with suppress(InputError):  # report the original error
            source.close()
        raise
    try:
        source.close()
    except InputError as error:
        bars.console.print(f"warning: {error}", markup=False, highlight=False, soft_wrap=True)


def _finish(stage: Stage, job: TrainJob, prepared: Prepared) -> None:
    stage.finish(
        counts=_counts(job.out, prepared),
        dropped=_dropped_counts(prepared, job.out),
        numbers=_numbers(job.out, prepared.state) | _first_stream_share(job),
        warnings=TrainMonitor(job.config.monitors, tuple(read_log(job.out / LOG_NAME))).lines,
    )


def _dropped_counts(prepared: Prepared, out_dir: Path) -> dict[str, int]:
    """Counts of pairs dropped before and during training."""
    return dict(Counter(prepared.dropped) + Counter(prepared.state.source.dropped()) + Counter(_unscored(out_dir)))


def _fingerprint(data: Data) -> Fingerprint:
    """The fingerprint of the pairs, or of the prompts if there are no pairs."""
    rows: Sequence[Pair | Sample] = data.pairs or data.samples
    return compute_fingerprint((map(Path, row.images), row.prompt) for row in rows)


def _run_steps(prepared: Prepared, job: TrainJob, bars: Progress) -> None:
    state, config, out_dir = prepared.state, job.config, job.out
    steps = state.source.steps
    settings = StepSettings(
        batch_size=items_per_pass(config, state.vlm, prepared.mean_tokens),
        schedule=make_schedule(config.optim, steps),
        clip_norm=config.optim.clip_norm,
        seed=job.seed,
        guard=config.guard,
    )
    is_first = job.processes.is_first
    onlookers = observe_run(out_dir, config, bars, done=state.step, total=steps) if is_first else nullcontext()
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
            raise InputError(f"{str(error).rstrip('.')}; nothing is lost: run the same command to resume") from error


def _save_trained(state: TrainState[Any], out_dir: Path) -> None:
    """Save under a temporary name first: `adapter/` or `model/` is complete from the moment it exists."""
    adapted = isinstance(state.vlm.model, PeftModel)
    # Sharded weights are gathered by all processes; the first one writes.
    weights = None if state.run_with_weights is run_directly else full_state(state.vlm.model, trained_only=adapted)
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


def _unscored(out_dir: Path) -> dict[str, int]:
    """Count of the policy's answers that no judge scored, over all steps."""
    unscored = sum(row.numbers.get(UNSCORED, 0.0) for row in read_log(out_dir / LOG_NAME))
    return {"unscored answers": round(unscored)} if unscored else {}


def _first_stream_share(job: TrainJob) -> dict[str, float]:
    """For a mixture, the share of all pairs that came from its first stream."""
    source = job.config.source
    if not isinstance(source, MixedConfig):
        return {}
    rows, first = list(read_log(job.out / LOG_NAME)), source.first.name
    pairs = sum(row.pairs for row in rows)
    return {share_name(first): sum(row.streams.get(first, {}).get("pairs", 0.0) for row in rows) / pairs}


def _numbers(out_dir: Path, state: TrainState[Any]) -> dict[str, float]:
    """First and last values, the seconds of the steps alone (without time lost to kills), and cache use."""
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
