"""What was made lately, kept in memory as long as it is small enough: an image is processed once, not once a stage."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """Values by key, the longest unused forgotten first, `limit` bytes in all. Not for several threads."""

    def __init__(self, limit: int = 256 * 2**20) -> None:
        self._limit = limit
        self._held = 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def fetch(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """The value of `key`; where it is not here `make` gives it with its bytes."""
        if key in self._values:
            self._values.move_to_end(key)
        else:
            self._values[key] = made = make()
            self._held += made[1]
        value = self._values[key][0]
        while self._held > self._limit:  # a value larger than all room is not kept either
            self._held -= self._values.popitem(last=False)[1][1]
        return value
