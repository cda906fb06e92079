"""Which words to mark: those in which two texts differ, and those that a score calls hallucinated.

Texts come out as segments, unescaped and unstyled; the templates turn these into marked and escaped words.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple

from sightline.data.differences import changed_spans


class Segment(NamedTuple):
    """A stretch of text, marked or not; the segments of a text joined are that text."""

    text: str
    marked: bool


def differing_words(chosen: str, rejected: str) -> tuple[list[Segment], list[Segment]]:
    """Both texts with the words marked that the other lacks at that place; case and punctuation count."""
    first, second = changed_spans(chosen, rejected)
    return mark_spans(chosen, first), mark_spans(rejected, second)


def mark_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[Segment]:
    """The text cut into segments, marked inside the [start, end) spans; spans may overlap, and are cut to the text."""
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
    """The spans that a benchmark put in `Score.details["hallucinated"]`; None where it judges no words."""
    spans = details.get("hallucinated")
    if not isinstance(spans, list):
        return None
    return [(int(span[0]), int(span[1])) for span in spans if isinstance(span, (list, tuple)) and len(span) == 2]
