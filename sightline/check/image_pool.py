"""Opening many pictures: in this process or in several, in the order in which they were asked for."""

import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sightline.check.overlap import LookAll
from sightline.check.pictures import Limits, Look, look_at
from sightline.errors import InputError

_CHUNK = 8


@contextmanager
def opener(limits: Limits, workers: int) -> Iterator[LookAll]:
    """A function from pictures to what they are; `workers` processes share the work, 1 is this one."""
    look = partial(look_at, limits=limits)
    if workers == 1:
        yield lambda sources: map(look, sources)
        return
    # A fresh process each: a fork would take the threads of torch along.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def look_all(sources: Sequence[Path | bytes]) -> Iterable[Look]:
            try:
                yield from pool.map(look, sources, chunksize=_CHUNK)
            except BrokenProcessPool as error:
                raise InputError(
                    f"a process that opened {len(sources)} images from {_shown(sources[0])} on was killed; "
                    "give the machine more memory or use fewer --workers"
                ) from error

        yield look_all


def _shown(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "inside a Parquet file"
