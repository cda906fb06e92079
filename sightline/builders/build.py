"""The stage around any builder: samples in, pair dataset out, resumable per sample, with a manifest.

A builder yields a result per sample; this stage stores finished results, drops and counts pairs that teach nothing, and
writes costs to the manifest. The builder makes pairs; `data.preference_dataset` stores them.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from sightline.builders.builder import Builder, BuildResult
from sightline.config import Config
from sightline.config.problems import shorten
from sightline.data.formats.layout import SAME
from sightline.data.images import adopt_image, open_image
from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.data.samples import Shard, read_samples, samples_file
from sightline.data.terminal import Progress, with_progress
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.opening import open_model, resolve_spec
from sightline.models.spec import ModelSpec
from sightline.models.vlm import cache_numbers
from sightline.records import Pair, Sample, append_rows, read_rows, sorted_rows, write_rows
from sightline.records.manifest import MANIFEST, Manifest, Stage, StageInput

BUILT, SCRATCH = "work/built.jsonl", "work/views"
_ROWS_AT_ONCE = 32  # samples between two writes; a kill loses at most this many


@dataclass(frozen=True)
class BuildPlan:
    """Builder, config, seed and shard of a build."""

    builder: Builder[Any]
    config: Config
    seed: int = 0
    shard: Shard = Shard()  # noqa: RUF009 - frozen


def build_dataset(
    plan: BuildPlan,
    model: ModelSpec | str | Path | None,
    samples: Path,
    out: Path,
    progress: Progress | None = None,
) -> Manifest:
    """Run a builder over a samples directory or file; `progress(done, total)` is called as samples finish.

    Raises:
        InputError: the stage, samples, model or builder is invalid, or no pair is left.
    """
    builder, config = plan.builder, plan.config
    if builder.needs_model and model is None:
        raise InputError(f"pairs {builder.name} needs a model; name one with --model")
    spec = None if model is None else resolve_spec(model)
    # Check rows, images and model before claiming the directory, so that a corrected command can reuse --out.
    is_new = not (out / MANIFEST).exists()
    total = _count(_rows(plan, samples), samples, decode=is_new)
    opened = open_model(spec) if is_new and spec is not None else None
    inputs: dict[str, StageInput] = {"samples": samples, **({} if spec is None else spec.inputs())}
    settings = config if plan.shard == Shard() else _Sharded(shard=(plan.shard.index, plan.shard.count), config=config)
    stage = Stage.open(out, f"pairs {builder.name}", settings, inputs, plan.seed)
    if stage.done:
        return stage.manifest
    done = {result.sample_id for result in _read_results(out)}
    folder = samples_file(samples).parent
    policy = opened or (None if spec is None else open_model(spec))
    context = RunContext(folder, out / SCRATCH, plan.seed, policy)
    remaining = (sample for sample in _rows(plan, samples) if sample.id not in done)
    _append(out, with_progress(builder.build(remaining, context, config), progress, total, done=len(done)))
    rate = {} if context.policy is None else cache_numbers(context.policy)
    return _finish(stage, folder, total, rate, builder.remedy)


def dropped_reason(pair: Pair) -> str | None:
    """Return the reason why a pair teaches nothing, or None: an answer is empty, or both are equal."""
    if not pair.rejected.strip():
        return "empty rejected answer"
    if not pair.chosen.strip():
        return "empty chosen answer"
    return SAME if pair.rejected.strip() == pair.chosen.strip() else None


class _Sharded(Config):
    """Config of a shard's manifest."""

    shard: tuple[int, int] = Field(description="index of the shard, from 0, and number of shards")
    config: BaseModel = Field(description="the builder's settings")


def _rows(plan: BuildPlan, samples: Path) -> Iterator[Sample]:
    """Yield this shard's samples, grouped if the builder asks for it."""
    rows = read_samples(samples, require_reference=plan.builder.needs_reference(plan.config))
    return plan.shard.every_nth(rows if plan.builder.gather is None else plan.builder.gather(rows))


def _count(part: Iterable[Sample], samples: Path, *, decode: bool) -> int:
    """Count the samples and check each one; `decode` also opens the images."""
    count = 0
    for sample in part:
        count += 1
        for image in sample.images if decode else ():
            open_image(samples_file(samples).parent / image, f"{samples_file(samples)} (id {shorten(sample.id)})")
    if not count:
        raise InputError(f"{samples_file(samples)} holds no samples; run a samples stage first")
    return count


def _read_results(out: Path) -> Iterator[BuildResult]:
    """Yield all results so far."""
    if (out / BUILT).exists():
        yield from read_rows(out / BUILT, BuildResult, allow_torn_tail=True)


def _append(out: Path, rows: Iterable[BuildResult]) -> None:
    """Append results to disk as they come; an interruption loses or repeats none.

    Raises:
        InputError: the directory was removed or replaced, so that earlier rows are gone.
    """
    waiting: list[BuildResult] = []
    try:
        for result in rows:
            waiting.append(result)
            if len(waiting) == _ROWS_AT_ONCE:
                ready, waiting = waiting, []  # reset first: `finally` must not repeat an interrupted write
                _require_claimed(out)
                append_rows(out / BUILT, ready)
    finally:
        _require_claimed(out)
        append_rows(out / BUILT, waiting)


def _require_claimed(out: Path) -> None:
    """Raise if the directory was removed or replaced since it was claimed."""
    if not (out / MANIFEST).exists():
        raise InputError(f"{out} and its pairs were removed while the command ran; run it again")


def _finish(stage: Stage, source: Path, samples: int, numbers: dict[str, float], remedy: str) -> Manifest:
    """Write the pairs that teach something, in the order of ids, and finish the manifest with counts and costs."""
    out = stage.directory
    reasons = Counter[str]()
    tallies: defaultdict[str, float] = defaultdict(float)
    tried = Counter[str]()
    images: dict[str, None] = {}
    kept, built = 0, set[str]()
    for result in _read_results(out):
        built.add(result.sample_id)
        tried.update(result.tallies.keys())
        for name, value in result.tallies.items():
            tallies[name] += value
        if result.dropped:
            reasons[result.dropped] += 1
        for pair in result.pairs:
            if reason := dropped_reason(pair):
                reasons[reason] += 1
            else:
                kept += 1
                images |= dict.fromkeys(pair.images)
    if len(built) != samples:
        raise InputError(
            f"{out / BUILT} holds {len(built)} of {samples} samples: rows were removed, or the samples changed, while "
            "the command ran; run it again"
        )
    if not kept:
        raise InputError(f"{source}: no pair is left (dropped: {dict(reasons)}); {remedy}")
    for image in images:
        adopt_image(source, image, out, str(out))
    write_rows(out / PAIRS, _kept_pairs(out))
    write_preference_dataset(out)
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    shares = {name: value / tried[name] for name, value in tallies.items() if name.startswith("share_")}
    return stage.finish(
        counts={"samples": samples, "pairs": kept}, dropped=dict(reasons), numbers={**tallies, **shares, **numbers}
    )


def _kept_pairs(out: Path) -> Iterator[Pair]:
    """Yield the pairs to keep; memory holds the ids of samples, not the pairs."""
    for result in sorted_rows(out / BUILT, BuildResult, lambda result: f"{result.sample_id}/", allow_torn_tail=True):
        yield from (pair for pair in sorted(result.pairs, key=lambda pair: pair.id) if not dropped_reason(pair))
