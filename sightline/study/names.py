"""What the names in a study may be: a line of text that shows as it is written, since it comes into folders, scripts,
tables and reports. Any letters and signs will do, blanks within a name too.
"""

from collections.abc import Iterable, Mapping

from sightline.data.terminal import visible


def check_names(names: Iterable[tuple[str, str]]) -> None:
    """Look at names, each with what it names.

    Raises:
        ValueError: one is empty, begins or ends with a blank, or has a character that does not show.
    """
    for what, name in names:
        if visible(name, kept="") != name:
            raise ValueError(f"{what} '{visible(name, kept='')}': a name has no newline, tab or other hidden character")
        if not name or name != name.strip():
            raise ValueError(f"{what} {name!r}: a name is not empty and has no blank at its ends")


def refuse_ring(below: Mapping[str, Iterable[str | None]], problem: str) -> None:
    """What is made of others must come down to what is not; `problem` has `{}` for the names of a ring.

    Raises:
        ValueError: some are made of each other.
    """

    def follow(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"the {problem.format(' and '.join(above))}")
        for lower in below.get(name, ()):
            if lower is not None:
                follow(lower, (*above, name))

    for name in below:
        follow(name, ())
