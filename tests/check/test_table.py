"""The table on the terminal: 80 columns whatever ids hold, worst first."""

import io
from pathlib import Path

from rich.cells import cell_len

from sightline.cli.check import plain, print_report
from sightline.data.terminal import Screen
from tests.check.datasets import Checked, checked, row, write

HOSTILE = (
    "[red]markup[/red] [/]",
    "\x1b[31mescape\x1b[0m\r\n\ttab",
    "\u202ereversed\u202c",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\u4e2d\u6587" * 40,
    "x" * 10_000,
    "a\u0301\u200d\U0001f468",
)


def printed(found: Checked) -> str:
    file = io.StringIO()
    print_report(found.report, Screen(file=file, width=80, force_terminal=False))
    return file.getvalue()


def test_hostile_ids_do_not_break_the_table(tmp_path: Path) -> None:
    rows = [row(n, id=text, rejected="") for n, text in enumerate(HOSTILE)]
    for number, one in enumerate(rows):
        dataset = write(tmp_path / f"pairs-{number}", [one, row(0, id="good", images=[])])
        text = printed(checked(dataset, tmp_path / f"out-{number}"))
        assert all(cell_len(line) <= 80 for line in text.splitlines())
        assert not set(text) & set("\x1b\r\t\u202e\u202c\u05e9\u0645\u200d")
        assert "1 (50.0 %)" in text
    assert "[red]markup[/red]" in printed(checked(tmp_path / "pairs-0", tmp_path / "out"))


def test_the_worst_stands_first(tmp_path: Path) -> None:
    rows = [row(n) for n in range(8)]
    rows[1]["chosen"] = ""
    rows[2]["images"] = rows[3]["images"] = ["images/none.png"]
    rows[5] = {**rows[4], "id": "other", "images": ["images/6.png"]}
    text = printed(checked(write(tmp_path / "pairs", [*rows]), tmp_path / "out"))
    words = [line.split()[0] for line in text.splitlines() if line.strip().startswith(("bad", "look", "ok"))]
    assert words == sorted(words, key=["bad", "look", "ok"].index)
    assert text.index("image missing") < text.index("empty") < text.index("same texts")
    assert "Not checked, name a model with --model" in text
    assert "8 rows (8 readable)" in text


def test_plain_text_is_cut() -> None:
    assert plain("short") == "short" and plain("x" * 25) == "x" * 23 + "\u2026"
    assert plain("\n") == "\\u000a"
