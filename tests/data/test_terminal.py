"""Untrusted text on a terminal: control and bidirectional characters are escaped, and markup is not interpreted."""

import ast
import io
import json
import re
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

import sightline
from sightline.data.terminal import Screen, one_line, open_bars, say, visible

HOSTILE = "[red]x[/red]\x1b[31m\x1b]0;TITLE\x07\u202e\x9b2J:smile:"
SHOWN = r"[red]x[/red]\u001b[31m\u001b]0;TITLE\u0007\u202e\u009b2J:smile:"
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
PACKAGE = Path(sightline.__file__).parent


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("Ein Bär, 熊, דוב 😀\u00a0ja\tso\nda", "Ein Bär, 熊, דוב 😀\u00a0ja\tso\nda"),
        ("\r\u2028\u2066\ud800\U000e0041", r"\u000d\u2028\u2066\ud800\udb40\udc41"),
    ],
)
def test_what_does_not_show_as_itself_is_written_as_its_code(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_codes_are_those_of_json() -> None:
    assert json.loads(f'"{visible(HOSTILE + chr(0xE0041))}"') == HOSTILE + chr(0xE0041)


def test_one_line_has_neither_newline_nor_tab() -> None:
    assert one_line(" a\n\tb\x1b ") == r"a b\u001b"


def test_lines_go_to_stdout_or_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    say(HOSTILE, err=True, red=True, end="")
    assert capsys.readouterr() == (f"{SHOWN}\n", SHOWN)


def test_red_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    say("a\x1b[2J", err=True, red=True)
    assert terminal.getvalue() == "\x1b[31ma\\u001b[2J\x1b[0m\n"


def test_a_screen_escapes_whatever_is_printed() -> None:
    """Texts, cells, titles, ready-made Text, and what asks for markup all the same."""
    file = io.StringIO()
    screen = Screen(file=file, width=200, force_terminal=False)
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE.replace("\x07", "")))
    for thing in (HOSTILE, Text(HOSTILE), table):
        screen.print(thing)
    screen.print(HOSTILE, markup=True, emoji=True)
    screen.log(HOSTILE)
    out = file.getvalue()
    assert HIDDEN.search(out) is None
    assert out.count(SHOWN) >= 5 and "[red]x[/red]" in out and ":smile:" in out


def test_tables_are_measured_with_the_codes() -> None:
    file = io.StringIO()
    table = Table("name", "next")
    table.add_row("a\x1bb", "c")
    Screen(file=file, width=80).print(table)
    widths = {len(line) for line in file.getvalue().splitlines()}
    assert len(widths) == 1 and r"a\u001bb" in file.getvalue()


def test_bars_escape_labels_and_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with open_bars() as bars:
        bars.update(bars.add_task(HOSTILE, total=1, note=HOSTILE), advance=1)
        bars.console.print(HOSTILE, soft_wrap=True)
    shown = capsys.readouterr().err
    assert HIDDEN.search(shown) is None and SHOWN in shown


def _bypasses(tree: ast.AST) -> list[str]:
    """Terminal output that bypasses `say` and `Screen`."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rich":
            names = {alias.name for alias in node.names}
            found += [name for name in names & {"print", "Console"} if node.module in ("rich", "rich.console")]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "typer.echo", "typer.secho", "rich.print") or re.fullmatch(
                r"sys\.(stdout|stderr)\.(write|writelines)|(.+\.)?Text\.from_markup|(.+\.)?Console", called
            ):
                found.append(called)
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_printed_past_the_one_place(path: Path) -> None:
    allowed = {"data/terminal.py": ["Console"], "lab/recipe/train_base.py": ["Console"]}  # the latter is given one
    found = _bypasses(ast.parse(path.read_text(encoding="utf-8")))
    assert found == allowed.get(path.relative_to(PACKAGE).as_posix(), [])


@pytest.mark.parametrize(
    "code",
    [
        "print(1)",
        "typer.echo('x')",
        "from rich.console import Console",
        "rich.console.Console()",
        "sys.stderr.write('')",
    ],
)
def test_a_bypass_would_be_found(code: str) -> None:
    assert _bypasses(ast.parse(code))
