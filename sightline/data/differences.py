"""In which words two texts differ: for the report's marks and for the dense weights of a correction."""

import re
from difflib import SequenceMatcher

_TOKEN = re.compile(r"\w+(?:['\N{RIGHT SINGLE QUOTATION MARK}-]\w+)*|[^\w\s]")
Spans = tuple[tuple[int, int], ...]


def changed_spans(one: str, other: str) -> tuple[Spans, Spans]:
    """Characters `[start, end)` of either text that the other lacks at that place; case and punctuation count."""
    found = [list(_TOKEN.finditer(text)) for text in (one, other)]
    words = [[match.group() for match in matches] for matches in found]
    spans: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    matcher = SequenceMatcher(a=words[0], b=words[1], autojunk=False)
    for kind, first, first_end, second, second_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        for side, (start, end) in enumerate(((first, first_end), (second, second_end))):
            if end > start:
                spans[side].append((found[side][start].start(), found[side][end - 1].end()))
    return tuple(spans[0]), tuple(spans[1])
