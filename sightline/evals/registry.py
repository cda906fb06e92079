"""The names of benchmarks and where each is made, resolved only when one is asked for.

An entry is "package.module:factory", called as `factory(name, folder=..., limit=..., validation=...)`; nothing is
imported before, so a benchmark's needs are its own. What the factory returns is described in `benchmark`.
"""

import importlib
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, cast

from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark

#: A benchmark whose name ends so asks the same of pictures that break the co-occurrence its twin's pictures keep.
COUNTER_SUFFIX = "-counter"

_LAB = ("lab-pope-random", "lab-pope-popular", "lab-pope-adversarial", "lab-chair", "lab-vqa")

BENCHMARKS: dict[str, str] = {
    name + suffix: "sightline.lab.benches:lab_benchmark" for suffix in ("", COUNTER_SUFFIX) for name in _LAB
}


class Factory(Protocol):
    """Makes a benchmark: `folder` is where its files are or may be put, `limit` keeps its first so many pictures.

    With `validation` it asks of other pictures, those on which settings may be chosen.
    """

    def __call__(self, name: str, *, folder: Path, limit: int | None, validation: bool) -> Benchmark: ...


def get_benchmark(name: str, *, folder: Path, limit: int | None = None, validation: bool = False) -> Benchmark:
    """The benchmark of that name; an InputError names the nearest spelling where there is none."""
    if name not in BENCHMARKS:
        near = get_close_matches(name, BENCHMARKS, n=1, cutoff=0.0)
        remedy = f"did you mean {near[0]!r}?" if near else "none is registered."
        raise InputError(f"there is no benchmark {name!r}; {remedy}")
    module, _, attribute = BENCHMARKS[name].partition(":")
    factory = cast(Factory, getattr(importlib.import_module(module), attribute))
    return factory(name, folder=folder, limit=limit, validation=validation)
