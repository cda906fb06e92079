"""Foreign text in reports, plots and tables of studies: no markup, no hidden character."""

from pathlib import Path

import pytest
from markupsafe import Markup
from typer.testing import CliRunner

from sightline.cli import app
from sightline.report.canvas import new_figure, styled, svg_text
from sightline.report.gallery import Segment
from sightline.report.rendering import (
    environment,
    html_segments,
    html_text,
    markdown_segments,
    markdown_text,
)
from sightline.study.ledger import Ledger, LedgerEntry
from tests.data.test_terminal import HIDDEN, HOSTILE, SHOWN


def test_values_of_templates_show_hidden_characters_as_codes() -> None:
    text = (
        environment()
        .from_string("<p title='{{ x }}'>{{ x }}</p>{{ n }}{{ m }}")
        .render(x=f"<b>{HOSTILE}\n", n=1.5, m=Markup("<i>m</i>"))
    )
    assert text == f"<p title='&lt;b&gt;{SHOWN}\n'>&lt;b&gt;{SHOWN}\n</p>1.5<i>m</i>"
    assert html_text(None) is None


def test_markdown_is_one_line_without_markup() -> None:
    assert markdown_text("a\n| **b** \x1b[2J\u202e<i>") == r"a \| \*\*b\*\* \\u001b\[2J\\u202e&lt;i&gt;"


@pytest.mark.parametrize("write", [lambda segments: html_segments(segments, "k"), markdown_segments])
def test_marked_words_are_escaped_too(write: object) -> None:
    text = str(write([Segment(HOSTILE, True), Segment(HOSTILE, False)]))  # type: ignore[operator]
    assert HIDDEN.search(text) is None and text.count("u202e") == 2


def test_plots_show_codes() -> None:
    with styled("x"):
        figure, axes = new_figure()
        axes.set_title("arm \u202e<b>")
        axes.plot([0, 1], [0, 1])
        text = svg_text(figure, "x")
    assert HIDDEN.search(text) is None and r"arm \u202e&lt;b&gt;" in text


def test_a_study_is_listed_and_shown_in_codes(tmp_path: Path) -> None:
    """A ledger of an earlier version may hold names that are refused by now."""
    ledger = Ledger(tmp_path, write=True)
    ledger.begin(
        LedgerEntry("k" * 64, "train", HOSTILE, f"train/{HOSTILE}", f"sightline {HOSTILE}", 0, "running", None)
    )
    ledger.end("k" * 64, "failed", seconds=1.0, note=HOSTILE)
    for words in (["ls"], ["show", "kkk"], ["rm", "kkk"]):
        result = CliRunner().invoke(app, ["study", *words, "--out", str(tmp_path)], env={"COLUMNS": "300"})
        assert result.exit_code == 0, result.output
        assert HIDDEN.search(result.output) is None and r"\u001b]0;TITLE\u0007" in result.output
        assert "[red]x[/red]" in result.output
