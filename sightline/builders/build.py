"""The stage around any builder: samples in, pair dataset out, resumable sample by sample, with a manifest.

A builder says what it made of each sample; this drops and counts what teaches nothing, keeps what is done on disk, and
says in the manifest what it cost. How pairs are made is the builder's, how they are stored `data.preference_dataset`'s.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

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
from sightline.models.device import resolve_device
from sightline.models.loading import load_vlm
from sightline.models.tensor_cache import open_cache
from sightline.models.vlm import VLM, cache_numbers
from sightline.records import Pair, Sample, append_rows, read_rows, sorted_rows, write_rows
from sightline.records.manifest import MANIFEST, Manifest, Stage

BUILT, SCRATCH = "work/built.jsonl", "work/views"
_ROWS_AT_ONCE = 32  # samples between two writes; a kill loses at most so many


@dataclass(frozen=True)
class BuildPlan:
    """What to build, and how."""

    builder: Builder[Any]
    config: Config
    seed: int = 0
    shard: Shard = Shard()  # noqa: RUF009 - frozen


def build_dataset(
    plan: BuildPlan, model: Path | None, samples: Path, out: Path, progress: Progress | None = None
) -> Manifest:
    """Run a builder over a samples directory or file; `progress(done, total)` is told as samples finish.

    Raises:
        InputError: what the stage, the samples, the model or the builder refuse, or no pair at all was left.
    """
    builder, config = plan.builder, plan.config
    if builder.needs_model and model is None:
        raise InputError(f"pairs {builder.name} needs a model; name one with --model")
    # Rows, images and model are checked before the directory is claimed: after a mistake the same --out can be given.
    is_new = not (out / MANIFEST).exists()
    total = _count(_rows(plan, samples), samples, decode=is_new)
    opened = _open(model) if is_new else None
    inputs = {"samples": samples} | ({} if model is None else {"model": model})
    asked = config if plan.shard == Shard() else _Sharded(shard=(plan.shard.index, plan.shard.count), config=config)
    stage = Stage.open(out, f"pairs {builder.name}", asked, inputs, plan.seed)
    if stage.done:
        return stage.manifest
    done = {made.sample_id for made in _built(out)}
    folder = samples_file(samples).parent
    tools = RunContext(folder, out / SCRATCH, plan.seed, opened or _open(model))
    left = (sample for sample in _rows(plan, samples) if sample.id not in done)
    _append(out, with_progress(builder.build(left, tools, config), progress, total, done=len(done)))
    rate = {} if tools.policy is None else cache_numbers(tools.policy)
    return _finish(stage, folder, total, rate, builder.remedy)


def dropped_reason(pair: Pair) -> str | None:
    """Why a pair teaches nothing, or None: an empty answer, or a rejected one that equals the chosen one."""
    if not pair.rejected.strip():
        return "empty rejected answer"
    if not pair.chosen.strip():
        return "empty chosen answer"
    return SAME if pair.rejected.strip() == pair.chosen.strip() else None


class _Sharded(Config):
    """What decides the directory of a part."""

    shard: tuple[int, int]
    config: BaseModel


def _rows(plan: BuildPlan, samples: Path) -> Iterator[Sample]:
    """This part's samples, gathered where the builder asks for it."""
    rows = read_samples(samples, require_reference=plan.builder.needs_reference(plan.config))
    return plan.shard.every_nth(rows if plan.builder.gather is None else plan.builder.gather(rows))


def _open(model: Path | None) -> VLM | None:
    return None if model is None else load_vlm(model, device=resolve_device("auto"), cache=open_cache())


def _count(part: Iterable[Sample], samples: Path, *, decode: bool) -> int:
    """The number of samples, each of them fit to work on; `decode` looks into the images too."""
    count = 0
    for sample in part:
        count += 1
        for image in sample.images if decode else ():
            open_image(samples_file(samples).parent / image, f"{samples_file(samples)} (id {shorten(sample.id)})")
    if not count:
        raise InputError(f"{samples_file(samples)} holds no samples; make some first.")
    return count


def _built(out: Path) -> Iterator[BuildResult]:
    """All that was made so far."""
    if (out / BUILT).exists():
        yield from read_rows(out / BUILT, BuildResult, allow_torn_tail=True)


def _append(out: Path, rows: Iterable[BuildResult]) -> None:
    """Put rows on disk as they come; an interruption loses none that was made, and doubles none.

    Raises:
        InputError: the directory was removed or replaced, so that earlier rows are gone.
    """
    waiting: list[BuildResult] = []
    try:
        for made in rows:
            waiting.append(made)
            if len(waiting) == _ROWS_AT_ONCE:
                ready, waiting = waiting, []  # first, lest an interrupted write be repeated below
                _require_claimed(out)
                append_rows(out / BUILT, ready)
    finally:
        _require_claimed(out)
        append_rows(out / BUILT, waiting)


def _require_claimed(out: Path) -> None:
    """Refuse to go on in a directory that is not the one that was claimed."""
    if not (out / MANIFEST).exists():
        raise InputError(f"{out} was removed while the command worked in it, and pairs with it; run it again")


def _finish(stage: Stage, source: Path, samples: int, numbers: dict[str, float], remedy: str) -> Manifest:
    """Keep what teaches something, in the order of ids, and say in the manifest what it took."""
    out = stage.directory
    reasons = Counter[str]()
    tallies: defaultdict[str, float] = defaultdict(float)
    tried = Counter[str]()
    images: dict[str, None] = {}
    kept, built = 0, set[str]()
    for made in _built(out):
        built.add(made.sample_id)
        tried.update(made.tallies.keys())
        for name, value in made.tallies.items():
            tallies[name] += value
        if made.dropped:
            reasons[made.dropped] += 1
        for pair in made.pairs:
            if reason := dropped_reason(pair):
                reasons[reason] += 1
            else:
                kept += 1
                images |= dict.fromkeys(pair.images)
    if len(built) != samples:
        raise InputError(
            f"{out / BUILT} holds {len(built)} of {samples} samples; rows of it were removed, or the samples changed, "
            "while the command ran; run it again"
        )
    if not kept:
        raise InputError(f"{source}: no pair is left, dropped were {dict(reasons)}; {remedy}.")
    for image in images:
        adopt_image(source, image, out, str(out))
    write_rows(out / PAIRS, _teaching(out))
    write_preference_dataset(out)
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    shares = {name: value / tried[name] for name, value in tallies.items() if name.startswith("share_")}
    return stage.finish(
        counts={"samples": samples, "pairs": kept},
        dropped=dict(reasons),
        numbers={**tallies, **shares, **numbers},
    )


def _teaching(out: Path) -> Iterator[Pair]:
    """The pairs to keep; memory holds the ids of samples, not the pairs."""
    for made in sorted_rows(out / BUILT, BuildResult, lambda made: f"{made.sample_id}/", allow_torn_tail=True):
        yield from (pair for pair in sorted(made.pairs, key=lambda pair: pair.id) if not dropped_reason(pair))
