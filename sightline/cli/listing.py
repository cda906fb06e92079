"""`sightline list`: what is registered under which name, and what it needs; the registries are in their rooms."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from sightline.data.terminal import Screen, say
from sightline.errors import InputError
from sightline.records.store import read_json

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

    proved = conformance()
    for name in sorted({*FAMILIES, *proved}):
        row = proved.get(name)
        if row is None:
            yield name, "", (type(FAMILIES[name]).__doc__ or "").strip().splitlines()[0]
            continue
        hidden = f"image tokens can be {row['hiding']}" if row["hiding"] else "image tokens cannot be hidden"
        limit = f"; rows of more than {row['limit']} tokens alone" if row.get("limit") else ""
        evidence = f"log-probs equal to {row['log_probs']:.0e} nats, gradients to {row['gradients']:.0e}"
        yield name, "", f"{row['way']}: {evidence}; {hidden}{limit}"


def conformance() -> dict[str, dict[str, Any]]:
    """What the conformance suite found for each type of model: its way, and how far it is off the model's own forward.

    Types that are not in it are proved when they are opened, as these are.
    """
    from sightline.models import families

    found: dict[str, dict[str, Any]] = read_json(Path(families.__file__).parent / "conformance.json")
    return found


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
def list_entries(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, for families with all numbers.")
    ] = False,
) -> None:
    """List what is registered, with what each entry needs; plugins included.

    For example: sightline list builders
    """
    if kind not in KINDS:
        raise InputError(f"there is no list of {kind!r}; choose one of {', '.join(KINDS)}")
    rows = list(KINDS[kind]())
    if as_json:
        entries: dict[str, dict[str, Any]] = {
            name: {**({"needs": needs} if needs else {}), "description": text} for name, needs, text in rows
        }
        if kind == "families":
            entries = {name: {**entry, **conformance().get(name, {})} for name, entry in entries.items()}
        say(json.dumps(entries, indent=2))
        return
    with_needs = any(needs for _, needs, _ in rows)
    from rich.table import Table

    table = Table("name", *(["needs"] if with_needs else []), "what it is")
    for name, needs, text in rows:
        table.add_row(name, *([needs] if with_needs else []), text)
    Screen().print(table)
