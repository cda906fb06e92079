"""One process's part of some work: which of the samples it takes. Bringing parts together again is each room's own."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sightline.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """The `index`-th (from 0) of `count` parts."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/8` is the third of eight.

        Raises:
            InputError: it has another form, or the index is not below the count.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise InputError(f"shard {text!r} must have the form INDEX/COUNT, such as 0/4 to 3/4")
        return cls(int(index), int(count))

    def of(self, rows: Iterable[T]) -> Iterator[T]:
        """Every `count`-th row from the `index`-th on: even parts of a stream of unknown length."""
        return (row for number, row in enumerate(rows) if number % self.count == self.index)

    def stretch_of(self, rows: Sequence[T]) -> Sequence[T]:
        """Rows that stand together, as questions on one picture do; the parts in order are the whole."""
        return rows[len(rows) * self.index // self.count : len(rows) * (self.index + 1) // self.count]
