"""The report of a check on the terminal: 80 columns, worst first, safe against whatever ids hold."""

import unicodedata

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from sightline.data.terminal import Screen, code_of, visible
from sightline.pairs.check.findings import GIVE_AWAY, Line, Report
from sightline.records import Estimate

_ORDER = {"bad": 0, "look": 1, "ok": 2}
_STYLES = {"bad": "bold red", "look": "yellow", "ok": "green"}
_MOST, _WHOLE = 24, 10_000  # characters of an id, and of a sentence
_LEFTWARD = ("R", "AL", "AN")  # letters that run leftward, which would turn the cells of a row around


def print_report(report: Report, console: Screen | None = None) -> None:
    """Print what was found, what was measured, and what was not looked at."""
    console = console or Screen()
    table = Table("verdict", "check", "found", "first rows, or within pairs", box=SIMPLE_HEAD)
    lines = sorted(report.lines, key=lambda line: (_ORDER[line.verdict], -_size(line)))
    shown = [line for line in lines if _is_shown(line)]
    for line in shown:
        table.add_row(
            Text(line.verdict, style=_STYLES[line.verdict]), Text(plain(line.title, 60)), *map(Text, _cells(line))
        )
    if shown:
        console.print(table)
    console.print(Text(_summary(report)))
    quiet = [line for line in lines if line not in shown]
    for label, measured in (("Nothing found", False), ("No give-away", True)):
        titles = [line.title for line in quiet if (line.value is not None) is measured]
        if titles:
            console.print(Text(f"{label}: {plain('; '.join(titles), _WHOLE)}."))
    for what, why in _by_reason(report.skipped).items():
        console.print(Text(f"Not looked at, {what}: {plain('; '.join(why), _WHOLE)}."))
    if any(line.within is not None for line in lines):
        console.print(Text("An AUC of 0.5 tells chosen from rejected answers as a coin does, 1 (or 0) without fail."))


def _is_shown(line: Line) -> bool:
    """Whatever was found, and of give-aways that are none, the two that are always asked for."""
    if line.check.startswith(GIVE_AWAY) and line.verdict == "ok":
        return line.check.removeprefix(GIVE_AWAY) in ("words", "bag of words")
    return bool(line.verdict != "ok" or line.value is not None or line.rows)


def _cells(line: Line) -> tuple[str, str]:
    """What was found, and more of it."""
    if line.value is None:
        return f"{line.rows} ({_percent(line.share)})", ", ".join(plain(name) for name in line.examples)
    unscored = f", {line.value.unscored} unscored" if line.value.unscored else ""
    if line.within is None:
        return _value(line.value), f"n {line.n}{unscored}"
    return f"AUC {_value(line.value)}", f"{_value(line.within)}, n {line.n}{unscored}"


def plain(text: str, most: int = _MOST) -> str:
    """The text in one line, what would not show as itself written as its code, cut to `most` characters."""
    shown = "".join(_shown(character) for character in text[: most + 1])
    return shown if len(text) <= most and len(shown) <= most else f"{shown[: most - 1]}\u2026"


def _shown(character: str) -> str:
    is_leftward = unicodedata.bidirectional(character) in _LEFTWARD
    return code_of(character) if is_leftward else visible(character, kept="")


def _summary(report: Report) -> str:
    return (
        f"{report.rows} rows, {report.readable} of them readable, {report.images} images ({report.distinct_images} "
        f"different that open); --fix would remove {report.removable} rows."
    )


def _size(line: Line) -> float:
    """How large a finding is, to sort by: a share, or how far an AUC is from a coin's."""
    values = [estimate.value for estimate in (line.value, line.within) if estimate is not None]
    if not values:
        return line.share or 0.0
    return max(abs(value - 0.5) for value in values if value is not None)


def _percent(share: float | None) -> str:
    percent = 100 * (share or 0.0)
    return f"{percent:.1f} %" if percent >= 0.05 or percent == 0 else "<0.1 %"


def _value(estimate: Estimate) -> str:
    if estimate.value is None:
        return "none"
    if estimate.ci95 is None:
        return f"{estimate.value:.2f}"
    low, high = estimate.ci95
    return f"{estimate.value:.2f} [{low:.2f}, {high:.2f}]"


def _by_reason(skipped: dict[str, str]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for what, why in skipped.items():
        reasons.setdefault(why, []).append(what)
    return reasons
