"""`sightline list`: what is registered under which name, and what it needs; the registries are in their rooms."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from sightline.data.terminal import Screen
from sightline.errors import InputError

app = typer.Typer()

Row = tuple[str, str, str]


def _builders() -> Iterable[Row]:
    from sightline.builders.registry import BUILDERS

    return ((name, ", ".join(entry.needs), entry.help) for name, entry in BUILDERS.items())


def _benchmarks() -> Iterable[Row]:
    from sightline.evals.registry import BENCHMARKS

    for name, entry in BENCHMARKS.items():
        needs = ["official files"] if entry.files else []
        yield name, ", ".join([*needs, *(["images"] if entry.needs_images else [])]) or "nothing", entry.help


def _losses() -> Iterable[Row]:
    from sightline.losses.table import LOSSES  # imports torch

    for name, spec in LOSSES.items():
        needs = ", ".join(sorted(need.name.lower().replace("_", " ") for need in spec.needs)) or "nothing"
        summary = (spec.function.__doc__ or "").strip().splitlines()[0]
        parameters = ", ".join(parameter.name for parameter in spec.parameters)
        yield name, needs, f"{summary} Parameters: {parameters}." if parameters else summary


def _judges() -> Iterable[Row]:
    from sightline.judges.registry import JUDGES

    return ((name, "", entry.help) for name, entry in JUDGES.items())


def _writers() -> Iterable[Row]:
    from sightline.writers.registry import WRITERS

    return ((name, "", entry.help) for name, entry in WRITERS.items())


def _layouts() -> Iterable[Row]:
    from sightline.data.formats.registry import LAYOUTS

    return ((name, "", layout.summary) for name, layout in LAYOUTS.items())


def _families() -> Iterable[Row]:
    from sightline.models.families import FAMILIES  # imports torch

    for name, family in FAMILIES.items():
        yield name, "", (type(family).__doc__ or "").strip().splitlines()[0]


def _oracles() -> Iterable[Row]:
    from sightline.oracles import ORACLES

    return ((name, "", entry.help) for name, entry in ORACLES.items())


def _configs() -> Iterable[Row]:
    from sightline.lab import CONFIGS

    for path in sorted(CONFIGS.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()
        yield str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path), "", first


KINDS: dict[str, Callable[[], Iterable[Row]]] = {
    "losses": _losses,
    "builders": _builders,
    "benchmarks": _benchmarks,
    "judges": _judges,
    "writers": _writers,
    "layouts": _layouts,
    "families": _families,
    "oracles": _oracles,
    "configs": _configs,
}


@app.command()
def list_entries(kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")]) -> None:
    """List what is registered, with what each entry needs; plugins included.

    For example: sightline list builders
    """
    if kind not in KINDS:
        raise InputError(f"there is no list of {kind!r}; choose one of {', '.join(KINDS)}")
    rows = list(KINDS[kind]())
    with_needs = any(needs for _, needs, _ in rows)
    from rich.table import Table

    table = Table("name", *(["needs"] if with_needs else []), "what it is")
    for name, needs, text in rows:
        table.add_row(name, *([needs] if with_needs else []), text)
    Screen().print(table)
