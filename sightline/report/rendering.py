"""Rendering of pages: the template environment and its filters for numbers, marked words and plots.

Text from models and files is escaped, by `html_text` for every value of a template and by `markdown_text` where a
template uses it: markup has no effect, and hidden characters are written as their codes. Only plots and the two marking
filters below produce markup. The contents of pages are in `page` and `study.report.page`.
"""

import re
from collections.abc import Iterable

import jinja2
from markupsafe import Markup, escape

from sightline.data.terminal import one_line, visible
from sightline.report import formatting
from sightline.report.gallery import Segment

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]|~#])")


def render(template: str, context: dict[str, object]) -> str:
    """Render a template; blank lines left by loops in Markdown are removed."""
    text = environment().get_template(template).render(context)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n" if template.endswith(".md.jinja") else text


def environment() -> jinja2.Environment:
    """The template environment with its filters."""
    result = jinja2.Environment(
        loader=jinja2.PackageLoader("sightline.report", "templates"),
        autoescape=True,
        finalize=html_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters |= {
        "value": formatting.value_text,
        "difference": formatting.difference_text,
        "interval": formatting.interval_text,
        "p": formatting.p_text,
        "effect": formatting.effect_text,
        "amount": formatting.amount_text,
        "marked": html_segments,
        "plain": markdown_text,
        "bold": markdown_segments,
        "place": place,
        "svg": Markup,
    }
    return result


def place(difference: float, scale: float) -> str:
    """The position of a difference in a drawing from -scale to +scale, in percent of its width, with a margin."""
    share = max(-1.0, min(1.0, difference / scale)) if scale > 0 else 0.0
    return f"{50 + 47 * share:.2f}%"


def html_segments(segments: Iterable[Segment], kind: str) -> Markup:
    """Segments with the marked ones in <mark class="kind">."""
    parts = (
        Markup('<mark class="{}">{}</mark>').format(kind, html_text(segment.text))
        if segment.marked
        else escape(html_text(segment.text))
        for segment in segments
    )
    return Markup("").join(parts)


def html_text(value: object) -> object:
    """A value for a page: hidden characters of text as codes, markup unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def markdown_text(text: str) -> Markup:
    """Text on one line, with Markdown, HTML and hidden characters escaped."""
    return escape(_MARKDOWN_SPECIAL.sub(r"\\\1", one_line(text)))  # entities have a # of their own


def markdown_segments(segments: Iterable[Segment]) -> Markup:
    """Segments with the marked ones in bold; as HTML, since ** fails beside punctuation."""
    parts = []
    for text, marked in segments:
        if not marked:
            # Spaces around are kept, since `markdown_text` would join the words.
            lead, trail = " " * text[:1].isspace(), " " * text[-1:].isspace()
            parts.append(Markup(lead) + markdown_text(text) + (trail if text.strip() else ""))
        else:
            parts.append(Markup("<b>{}</b>").format(markdown_text(text)))
    return Markup("").join(parts)
