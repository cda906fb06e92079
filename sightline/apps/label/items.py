"""The items to label: pairs of a preference dataset, or the answers of two evaluations to one benchmark.

They are written once, with their pictures, into a labels directory (`items.jsonl`); `data.labels` reads and writes the
raters' files.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pydantic import Field

from sightline.apps.label.session import LabelConfig
from sightline.data.images import adopt_by_content, adopt_image
from sightline.data.labels import ITEMS, read_items
from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.evals.directory import BenchmarkResult, benchmark_names, read_result
from sightline.records import LabelItem, Pair, RatedAnswer, Stage, write_rows

SAME, EMPTY = "both answers are the same", "an answer is empty"


@dataclass(frozen=True)
class ItemSource:
    """The source of items: one directory of pairs, or two evaluations and a benchmark."""

    places: tuple[Path, ...]
    bench: str | None = None

    @property
    def labels(self) -> Path:
        """The default labels directory, beside the source."""
        first = self.places[0].absolute()
        name = "-".join(place.absolute().name for place in self.places)
        return first.parent / f"{name}-labels"


@dataclass(frozen=True)
class LabelsDirectory:
    """A labels directory locked by this process, its items by id, and counts of skipped items by reason."""

    folder: Path
    items: dict[str, LabelItem]
    dropped: dict[str, int]


def open_labels(source: ItemSource, out: Path, config: LabelConfig, seed: int) -> LabelsDirectory:
    """Create a labels directory, or resume one of the same source, config and seed.

    Raises:
        InputError: the source holds neither pairs nor evaluations, nothing is left to compare, or `out` belongs to
            another run or process.
    """
    dropped: Counter[str] = Counter()
    found = tuple(islice(_comparable(_drafts(source), dropped), config.limit))
    if not found:
        raise InputError(
            f"{source.places[0]} holds nothing to compare (skipped: {dict(dropped)}); choose another directory"
        )
    inputs = {f"source_{number}": place for number, place in enumerate(source.places)}
    stage_config = _LabelStageConfig(bench=source.bench, **config.model_dump())
    Stage.open(out, "label", stage_config, inputs, seed)  # stays open while this process labels
    if not (out / ITEMS).exists():
        write_rows(out / ITEMS, (draft.with_images(out) for draft in found))
    return LabelsDirectory(out, read_items(out), dict(dropped))


class _LabelStageConfig(LabelConfig):
    """The settings that identify a labels directory."""

    bench: str | None = Field(
        default=None, description="the benchmark whose answers are labeled; null for a directory of pairs"
    )


@dataclass(frozen=True)
class _ItemDraft:
    """An item whose pictures are still in `folder`; `by_content` if their paths may lead outside it."""

    item: LabelItem
    folder: Path
    by_content: bool

    def with_images(self, out: Path) -> LabelItem:
        """The item with its pictures copied into `out`."""
        where = f"item {self.item.id!r}"
        if not self.by_content:
            images = tuple(adopt_image(self.folder, image, out, where) for image in self.item.images)
        else:
            paths = [(self.folder / image).resolve() for image in self.item.images]
            images = tuple(adopt_by_content(path.parent, path.name, out, where) for path in paths)
        return self.item.model_copy(update={"images": images})


def _drafts(source: ItemSource) -> Iterator[_ItemDraft]:
    if len(source.places) == 1:
        if source.bench is not None:
            raise InputError("--bench needs two evaluations; pass the second with --beside")
        yield from (_ItemDraft(_from_pair(pair), source.places[0], False) for pair in read_pairs(source.places[0]))
        return
    first, second = (read_result(place, _bench(source)) for place in source.places)
    names = _names(source.places)
    yield from (_ItemDraft(item, first.folder, True) for item in _from_runs(first, second, names))


def _from_pair(pair: Pair) -> LabelItem:
    return LabelItem(
        id=pair.id,
        sample_id=pair.id,
        images=pair.images,
        history=pair.history,
        prompt=pair.prompt,
        cluster=pair.cluster,
        first=RatedAnswer(id="chosen", text=pair.chosen),
        second=RatedAnswer(id="rejected", text=pair.rejected),
    )


def _from_runs(first: BenchmarkResult, second: BenchmarkResult, names: Sequence[str]) -> Iterator[LabelItem]:
    """One item for each sample that both runs answered."""
    texts = [{answer.sample_id: answer.text for answer in run.answers} for run in (first, second)]
    for sample in first.samples:
        if sample.id in texts[0] and sample.id in texts[1]:
            yield LabelItem(
                id=sample.id,
                sample_id=sample.id,
                images=sample.images,
                history=sample.history,
                prompt=sample.prompt,
                cluster=sample.cluster,
                first=RatedAnswer(id=names[0], text=texts[0][sample.id]),
                second=RatedAnswer(id=names[1], text=texts[1][sample.id]),
            )


def _names(places: Sequence[Path]) -> tuple[str, str]:
    """Distinct names for two runs."""
    first, second = (place.absolute().name for place in places)
    return (first, second) if first != second else (f"{first}-1", f"{second}-2")


def _bench(source: ItemSource) -> str:
    shared = sorted(set(benchmark_names(source.places[0])) & set(benchmark_names(source.places[1])))
    if source.bench is not None and source.bench not in shared:
        raise InputError(
            f"{source.bench!r} is not a benchmark of both evaluations (shared: {', '.join(shared) or 'none'})"
        )
    if source.bench is None and len(shared) != 1:
        raise InputError(
            f"{' and '.join(map(os.fspath, source.places))} share {len(shared)} benchmarks "
            f"({', '.join(shared) or 'none'}); name one with --bench"
        )
    return source.bench or shared[0]


def _comparable(drafts: Iterator[_ItemDraft], dropped: Counter[str]) -> Iterator[_ItemDraft]:
    for draft in drafts:
        texts = [draft.item.first.text.strip(), draft.item.second.text.strip()]
        if not all(texts):
            dropped[EMPTY] += 1
        elif texts[0] == texts[1]:
            dropped[SAME] += 1
        else:
            yield draft
