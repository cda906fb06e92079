"""What a chat's page shows, as HTML in which everything that people and models said is text and nothing else."""

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup, escape

from sightline.records import Turn
from sightline.study.report.pictures import data_uri

#: Gradio reads values of HTML once more as a template, in which these mean something.
_TEMPLATE = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;", "\\": "&#92;"})
#: Longest side and bytes of a picture on the page; larger ones are shrunk for the screen, not on disk.
MAX_SIDE, MAX_BYTES = 1600, 2_000_000


def safe(text: str) -> Markup:
    """Text that stays text in a page and in Gradio's template."""
    return Markup(str(escape(text)).translate(_TEMPLATE))


def card(title: str, text: str, note: str) -> str:
    """One voice's answer under its name."""
    return str(
        Markup('<article class="said"><h2>{}</h2><p class="text">{}</p><small>{}</small></article>').format(
            safe(title), safe(text), safe(note)
        )
    )


def status(text: str, *, bad: bool = False) -> str:
    """The line that says what happened, on one line."""
    kind = "status bad" if bad else "status"
    return str(Markup('<p class="{}" role="status">{}</p>').format(kind, safe(" ".join(text.split()))))


def past(turns: Sequence[Turn], prompt: str) -> str:
    """What was said before, and the question that is being answered."""
    told = [*turns, *([Turn(role="user", text=prompt)] if prompt else [])]
    rows = (Markup('<p class="turn {}">{}</p>').format(turn.role, safe(turn.text)) for turn in told)
    return str(Markup("").join(rows))


def picture(path: Path | None) -> str:
    """A picture, or where it would be."""
    uri = None if path is None else data_uri(path, side=MAX_SIDE, size=MAX_BYTES)
    if uri is None:
        return '<p class="empty">No picture yet: questions go without one.</p>'
    return str(Markup('<img src="{}" alt="the picture">').format(uri))
