"""Examples of pairs and answers for reports, sampled at even distances, with marked words and embedded images.

The templates lay them out.
"""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from PIL import Image

from sightline.data.images import open_image
from sightline.data.texts import changed_spans
from sightline.errors import InputError
from sightline.evals.directory import BenchmarkResult
from sightline.records.rows import Pair


class Segment(NamedTuple):
    """A stretch of text, marked or not; the segments of a text joined are that text."""

    text: str
    marked: bool


def differing_words(chosen: str, rejected: str) -> tuple[list[Segment], list[Segment]]:
    """Both texts with their differing words marked; case and punctuation count."""
    first, second = changed_spans(chosen, rejected)
    return mark_spans(chosen, first), mark_spans(rejected, second)


def mark_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[Segment]:
    """The text in segments, marked inside the [start, end) spans; spans may overlap and are clipped to the text."""
    marked = bytearray(len(text))
    for start, end in spans:
        first, last = max(0, start), min(len(text), end)
        if first < last:
            marked[first:last] = b"\x01" * (last - first)
    return [
        Segment("".join(text[index] for index in run), bool(flag))
        for flag, run in groupby(range(len(text)), key=lambda index: marked[index])
    ]


def hallucinated_spans(details: dict[str, Any]) -> list[tuple[int, int]] | None:
    """The spans in `Score.details["hallucinated"]`; None if the benchmark does not judge words."""
    spans = details.get("hallucinated")
    if not isinstance(spans, list):
        return None
    return [(int(span[0]), int(span[1])) for span in spans if isinstance(span, (list, tuple)) and len(span) == 2]


#: Larger images are shrunk, so that a page with forty photographs opens on a phone.
MAX_SIDE, MAX_BYTES = 640, 200_000


def data_uri(path: Path, side: int = MAX_SIDE, size: int = MAX_BYTES) -> str | None:
    """The image as `data:image/...`, re-encoded unless it is small; None if it cannot be opened.

    `side` bounds the longer side in pixels; files of at most `size` bytes are embedded unchanged.
    """
    try:
        image = open_image(path, "report")
        with Image.open(path) as original:
            kind = original.format
    except (InputError, OSError):
        return None
    if kind in {"PNG", "JPEG", "WEBP"} and max(image.size) <= side and path.stat().st_size <= size:
        return _uri(path.read_bytes(), kind)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return _uri(buffer.getvalue(), "JPEG")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode('ascii')}"


T = TypeVar("T")

PAIRS_SHOWN = 12
ANSWERS_SHOWN = 4  # of each kind of change on each benchmark
FACTS_SHOWN = 6


class PairView(NamedTuple):
    """One preference pair: images (None if one cannot be opened), texts in segments, provenance as text."""

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
    """Samples with one kind of change: their number, the total, and examples."""

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
    """Examples of pairs whose texts differ; `picture` embeds an image."""
    differing = [pair for pair in pairs if pair.chosen != pair.rejected]
    return [_pair_view(pair, folder, picture) for pair in evenly(differing, count)]


def answer_galleries(
    base: Mapping[str, BenchmarkResult], aligned: Mapping[str, BenchmarkResult]
) -> list[AnswerGallery]:
    """For each benchmark that judges words: samples fixed, broken, and hallucinated both times."""
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
    # Grouped by whether an answer hallucinates at all, which the primary share counts.
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
