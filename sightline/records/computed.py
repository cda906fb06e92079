"""What forward passes were computed in: number format, device and its name, as it was and not as a config asks for it.

Who runs a pass calls `note`; stages that are open then put the record into their manifests (`manifest`). Which values a
record has is decided where passes run (`sightline.models.precision`).
"""

import weakref
from typing import Protocol

from sightline.records.rows import Row


class Computed(Row):
    """The conditions of forward passes.

    `device` is the kind ("cpu", "cuda") and `device_name` the processor's or the card's own name. `dtype` is that of
    the weights; with `autocast` products are in bfloat16.
    """

    device: str
    device_name: str
    dtype: str
    autocast: bool


class Listener(Protocol):
    """Who wants to know of records; a stage."""

    def add_computed(self, record: Computed) -> None:
        """Take in a record, which may be known already."""


_listeners: weakref.WeakSet[Listener] = weakref.WeakSet()


def listen(listener: Listener) -> None:
    """From now on `listener` gets every record, until it is forgotten or goes out of use."""
    _listeners.add(listener)


def forget(listener: Listener) -> None:
    """Tell `listener` nothing any more."""
    _listeners.discard(listener)


def note(record: Computed) -> None:
    """A pass is computed under these conditions."""
    for listener in tuple(_listeners):
        listener.add_computed(record)
