"""Progress without a terminal: a line once a minute, none in the first minute, with a fake clock."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from rich.progress import Progress as Bars

from sightline.data.terminal import Log, Screen, one_bar, open_bars


class Clock:
    """Seconds as the test sets them."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def logged(clock: Clock) -> Iterator[tuple[Bars, Log, io.StringIO]]:
    file = io.StringIO()
    bars = Bars(console=Screen(file=file, width=80), disable=True)
    yield bars, Log(bars, clock), file


def test_a_line_a_minute_with_note_rate_and_time_left() -> None:
    clock = Clock()
    with logged(clock) as (bars, log, file):
        task = bars.add_task("training", total=500, completed=20, note="")
        log.look()
        for second in range(1, 60):
            clock.now = 1000.0 + second
            bars.update(task, completed=20 + 2 * second, note="loss 0.693")
            log.look()
        assert file.getvalue() == "", "the first minute is quiet"
        clock.now = 1060.0
        bars.update(task, completed=140)
        log.look()
        log.look()
        assert file.getvalue() == "training: 140 of 500, loss 0.693, 2 a second, 3 min left\n"
        clock.now = 1119.0
        log.look()
        assert file.getvalue().count("\n") == 1
        clock.now = 1120.0
        log.look()
        assert file.getvalue().splitlines()[1] == "training: 140 of 500, loss 0.693, 1 a second, 6 min left"


def test_what_is_done_is_left_out_and_what_has_no_end_has_no_time_left() -> None:
    clock = Clock()
    with logged(clock) as (bars, log, file):
        clock.now += 60
        log.look()
        bars.add_task("reading", total=5, completed=5, note="")
        open_end = bars.add_task("rows", total=None, note="")
        log.look()
        clock.now += 60
        bars.update(open_end, completed=12000, note="a\x1b]0;b\nc")
        log.look()
    assert file.getvalue().splitlines() == ["at work for 60 s", r"rows: 12000, a\u001b]0;b c, 200 a second"]


def test_lines_come_while_a_step_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is updated and no step ends; the line is written all the same, by a look each second."""
    clock = Clock()
    with one_bar("pairs", clock=clock) as progress:
        progress(3, 10)
        clock.now += 61
        deadline = time.monotonic() + 30
        shown = ""
        while "pairs: 3 of 10" not in shown and time.monotonic() < deadline:
            time.sleep(0.1)
            shown += capsys.readouterr().err
    assert shown.splitlines()[0].startswith("pairs: 3 of 10")


def test_a_hidden_bar_and_a_short_one_write_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with open_bars(shown=False, clock=clock) as bars:
        bars.add_task("x", total=2, note="")
        clock.now += 600
        time.sleep(1.2)
    assert capsys.readouterr().err == ""
    with one_bar("pairs", clock=clock) as progress:
        progress(1, 1)
        assert capsys.readouterr().err == ""
