"""What the report shows of pairs and answers: a few of each, picked at even distances and never by hand.

Words are marked by `marking`, pictures embedded by `pictures`; the layout is the templates'.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from sightline.evals.directory import BenchmarkResult
from sightline.records.rows import Pair
from sightline.study.report.marking import Segment, differing_words, hallucinated_spans, mark_spans
from sightline.study.report.pictures import data_uri

T = TypeVar("T")

PAIRS_SHOWN = 12
ANSWERS_SHOWN = 4  # of each kind of change on each benchmark
FACTS_SHOWN = 6


class PairView(NamedTuple):
    """One preference pair: pictures (None where one cannot be opened), texts in segments, provenance in words."""

    id: str
    pictures: list[str | None]
    prompt: str
    chosen: list[Segment]
    rejected: list[Segment]
    facts: list[tuple[str, str]]


class AnswerView(NamedTuple):
    """One sample answered by both models, hallucinated words marked."""

    id: str
    pictures: list[str | None]
    prompt: str
    before: list[Segment]
    after: list[Segment]


class ChangeView(NamedTuple):
    """Samples that changed in one way: how many of how many, and some of them."""

    title: str
    number: int
    total: int
    examples: list[AnswerView]


class AnswerGallery(NamedTuple):
    """The changes of one benchmark."""

    benchmark: str
    changes: list[ChangeView]


class _Change(NamedTuple):
    sample_id: str
    before: list[tuple[int, int]]
    after: list[tuple[int, int]]


def evenly(items: Sequence[T], count: int) -> list[T]:
    """At most `count` items at even distances, in order."""
    shown = min(count, len(items))
    return [items[(2 * place + 1) * len(items) // (2 * shown)] for place in range(shown)]


def pair_views(
    pairs: Sequence[Pair], folder: Path, count: int = PAIRS_SHOWN, picture: Callable[[Path], str | None] = data_uri
) -> list[PairView]:
    """Some of the pairs whose texts differ; `picture` embeds one."""
    differing = [pair for pair in pairs if pair.chosen != pair.rejected]
    return [_pair_view(pair, folder, picture) for pair in evenly(differing, count)]


def answer_galleries(
    base: Mapping[str, BenchmarkResult], aligned: Mapping[str, BenchmarkResult]
) -> list[AnswerGallery]:
    """For each benchmark that judges words: samples mended, broken, and hallucinated twice."""
    galleries = []
    for name in base:
        if name not in aligned:
            continue
        changes = _changes(base[name], aligned[name])
        if changes:
            galleries.append(AnswerGallery(name, _views(changes, base[name], aligned[name])))
    return galleries


def _pair_view(pair: Pair, folder: Path, picture: Callable[[Path], str | None]) -> PairView:
    chosen, rejected = differing_words(pair.chosen, pair.rejected)
    facts = [
        (key.replace("_", " "), _fact(value))
        for key, value in pair.provenance.items()
        if isinstance(value, (str, int, float)) and str(value)
    ]
    pictures = [picture(folder / image) for image in pair.images]
    return PairView(pair.id, pictures, pair.prompt, chosen, rejected, facts[:FACTS_SHOWN])


def _fact(value: str | float) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _changes(base: BenchmarkResult, aligned: BenchmarkResult) -> list[_Change]:
    after_of = {score.sample_id: hallucinated_spans(score.details) for score in aligned.scores}
    changes = []
    for score in base.scores:
        before, after = hallucinated_spans(score.details), after_of.get(score.sample_id)
        if before is not None and after is not None:
            changes.append(_Change(score.sample_id, before, after))
    return changes


def _views(changes: Sequence[_Change], base: BenchmarkResult, aligned: BenchmarkResult) -> list[ChangeView]:
    samples = {sample.id: sample for sample in base.samples}
    texts = [{answer.sample_id: answer.text for answer in side.answers} for side in (base, aligned)]
    # Whether an answer hallucinates at all comes first: this is what the primary share counts.
    kinds = {
        "Mended: hallucinated before, not after": [c for c in changes if c.before and not c.after],
        "Broken: hallucinated after, not before": [c for c in changes if c.after and not c.before],
        "Hallucinated both times": [c for c in changes if c.before and c.after],
    }
    views = []
    for title, members in kinds.items():
        examples = []
        for change in evenly(members, ANSWERS_SHOWN):
            sample = samples[change.sample_id]
            marked = [
                mark_spans(text[change.sample_id], spans)
                for text, spans in zip(texts, (change.before, change.after), strict=True)
            ]
            pictures = [data_uri(base.folder / image) for image in sample.images]
            examples.append(AnswerView(sample.id, pictures, sample.prompt, marked[0], marked[1]))
        views.append(ChangeView(title, len(members), len(changes), examples))
    return views
