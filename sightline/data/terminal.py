"""The one place that writes on a terminal; what does not show as itself is written as its code.

Names, paths, answers and errors come from files and models of others. A control character in them would move the
cursor, set the window's title or hide text, a bidirectional one would turn the line around, and `[red]` would be eaten
as Rich's markup. Everything that a command prints goes through `say` or a `Screen`; a test looks for other ways.
"""

import os
import sys
import unicodedata
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

#: Categories of characters that move the cursor, are not seen, or are no characters.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def visible(text: str, *, kept: str = "\n\t") -> str:
    """The text with every character that does not show as itself written as its code, but for those `kept`."""
    if text.isprintable():  # all but spaces other than the plain one, and what is hidden
        return text
    return "".join(character if character in kept else _shown(character) for character in text)


def one_line(text: str) -> str:
    """The same on one line: white space becomes single blanks."""
    return visible(" ".join(text.split()), kept="")


def say(text: str, *, err: bool = False, red: bool = False, end: str = "\n") -> None:
    """Write a line on stdout, or on stderr."""
    stream = sys.stderr if err else sys.stdout
    shown = visible(text)
    is_colored = red and stream.isatty() and not os.environ.get("NO_COLOR")
    stream.write((f"\x1b[31m{shown}\x1b[0m" if is_colored else shown) + end)
    stream.flush()


class Screen(Console):
    """A Rich console for foreign text: texts have no markup, and no hidden character reaches the terminal.

    Styles are given beside a text (`style=`, `Text(..., style=)`), never in it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """A text as it will stand there, measured after its hidden characters are written as codes."""
        return super().render_str(visible(text), **{**options, "markup": False, "emoji": False})

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The pieces of anything that can be printed; what came another way than by `render_str` is caught here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def code_of(character: str) -> str:
    r"""A character as its code in the form of JSON, such as `\u001b`: two of four digits where four are too few."""
    units = character.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{unit.hex()}" for unit in (units[:2], units[2:]) if unit)


def _shown(character: str) -> str:
    return code_of(character) if unicodedata.category(character) in _HIDDEN else character
