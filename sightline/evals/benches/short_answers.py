"""What benchmarks of short answers share: how they ask, how a list is cut to its first pictures. No rule is here."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

R = TypeVar("R", bound=Mapping[str, Any])

#: How LLaVA-1.5 asks for short answers and for options (arXiv 2310.03744, sec. 3.2); other models know it as well.
SHORT_ANSWER = "Answer the question using a single word or phrase."
OPTION_LETTER = "Answer with the option's letter from the given choices directly."


def first_pictures(rows: Iterable[R], image: str, limit: int | None) -> Iterator[R]:
    """The rows on the first `limit` pictures, in order; all of them without a limit."""
    seen: set[Any] = set()
    for row in rows:
        if limit is not None and row[image] not in seen:
            if len(seen) == limit:
                continue
            seen.add(row[image])
        yield row
