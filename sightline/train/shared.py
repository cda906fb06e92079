"""A stream whose work several processes share: each makes its part of a step's examples, then all hold what all made.

So sampling and judging take a share of the time, and every process trains on the same step. What a stream is, is the
sources' affair; who the processes are is `processes`.
"""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from sightline.train.processes import Processes

E = TypeVar("E")
M = TypeVar("M")
E_contra = TypeVar("E_contra", contravariant=True)
M_co = TypeVar("M_co", covariant=True)


class Making(Protocol[E_contra, M_co]):
    """What makes one thing of each example, by the example and the epoch alone, and may be told of a new policy."""

    @property
    def name(self) -> str: ...

    def refresh(self, step: int) -> None: ...

    def make(self, examples: Sequence[E_contra], epoch: int, /) -> Sequence[M_co]: ...

    def close(self) -> None: ...


class Shared(Generic[E, M]):
    """A stream as all processes see it together; all must call its methods, with the same arguments.

    Raises InputError in the first process, and ends the others, where the stream raises it in any.
    """

    def __init__(self, stream: Making[E, M], processes: Processes) -> None:
        self._stream, self._processes = stream, processes

    @property
    def name(self) -> str:
        return self._stream.name

    def refresh(self, step: int) -> None:
        """As the stream's."""
        self._stream.refresh(step)

    def make(self, examples: Sequence[E], epoch: int, /) -> list[M]:
        """What came of each example, in order."""
        share = self._processes.share(examples)
        made = self._processes.together(lambda: list(self._stream.make(share, epoch)) if share else [])
        return self._processes.join(made)

    def close(self) -> None:
        """As the stream's, and the one method for which no process waits for another: one of them may have failed."""
        self._stream.close()
