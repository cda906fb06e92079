"""Checks of the names in a study: one line of visible text, since names are used in folders, scripts and reports."""

from collections.abc import Iterable, Mapping

from sightline.data.terminal import visible


def check_names(names: Iterable[tuple[str, str]]) -> None:
    """Check (kind, name) pairs.

    Raises:
        ValueError: a name is empty, starts or ends with a blank, or has an invisible character.
    """
    for what, name in names:
        if visible(name, kept="") != name:
            raise ValueError(f"{what} '{visible(name, kept='')}': a name has no newline, tab or other hidden character")
        if not name or name != name.strip():
            raise ValueError(f"{what} {name!r}: a name is not empty and has no blank at its ends")


def refuse_cycle(below: Mapping[str, Iterable[str | None]], problem: str) -> None:
    """Refuse cycles among names that are built from others; `problem` has `{}` for the names of the cycle.

    Raises:
        ValueError: there is a cycle.
    """

    def follow(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"the {problem.format(' and '.join(above))}")
        for lower in below.get(name, ()):
            if lower is not None:
                follow(lower, (*above, name))

    for name in below:
        follow(name, ())
