"""The HTML page of a monitor: one file in the style of the reports, without scripts; all input is escaped."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jinja2
from markupsafe import Markup

from sightline.apps.monitor.metric_monitor import Findings, MetricMonitor, MonitorFinding
from sightline.records.ratings import LoggedRequest
from sightline.report.formatting import NARROW, interval_text, value_text

_WIDTH, _HEIGHT = 220.0, 56.0
_SHOWN = 400  # characters of a prompt or answer
#: Bidirectional control characters, which would reorder the text that follows.
_BIDI = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C))


class PageLine(NamedTuple):
    """A table row; `path` are the points of the evidence curve, `bar` is the height of the alarm line."""

    found: MonitorFinding
    path: str
    bar: str


class PageExample(NamedTuple):
    """One of the most unusual log rows of this run."""

    id: str
    time: str
    prompt: str
    answer: str


def render(
    findings: Findings, watches: Sequence[MetricMonitor], examples: Mapping[str, Sequence[LoggedRequest]]
) -> str:
    """Render the page; `examples` are unusual rows of this run by the number's name."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [
                jinja2.PackageLoader("sightline.apps.monitor", "templates"),
                jinja2.PackageLoader("sightline.report", "templates"),
            ]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"value": value_text, "interval": interval_text, "evidence": evidence_text, "plain": _plain}
    shown = [_line(found, watch) for found, watch in zip(findings.findings, watches, strict=True)]
    by_title = {found.title: [_example(row) for row in examples.get(found.name, ())] for found in findings.alarms}
    return environment.get_template("monitor.html.jinja").render(
        findings=findings, lines=shown, examples=by_title, width=_WIDTH, height=_HEIGHT
    )


def evidence_text(factor: float) -> str:
    """`3.1`, `420`, `2 x 10^9` with a true superscript: the growth factor of the bets."""
    if factor < 1000:
        return f"{factor:.2g}" if factor < 10 else f"{factor:.0f}"
    mantissa, _, exponent = f"{factor:.0e}".partition("e")
    return Markup("{}{}&times;{}10<sup>{}</sup>").format(mantissa, NARROW, NARROW, int(exponent))


def _line(found: MonitorFinding, watch: MetricMonitor) -> PageLine:
    """The evidence curve, on a log scale from 1/10 to the higher of its peak and 1.15 times the bar's logarithm."""
    points = [(0, 0.0), *watch.history]
    low, high = -2.303, max(1.15 * watch.bar, *(log for _, log in points))
    last = max(1, points[-1][0])

    def height(log: float) -> float:
        return _HEIGHT - 2 - (_HEIGHT - 4) * (min(max(log, low), high) - low) / (high - low)

    path = " ".join(f"{2 + (_WIDTH - 4) * at / last:.1f},{height(log):.1f}" for at, log in points)
    return PageLine(found, path, f"{height(watch.bar):.1f}")


def _example(row: LoggedRequest) -> PageExample:
    return PageExample(_plain(row.id), _plain(row.time), _plain(row.prompt), _plain(row.answer))


def _plain(text: str | None) -> str:
    if text is None:
        return "(not kept)"
    shown = text.translate(_BIDI)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "\N{HORIZONTAL ELLIPSIS}"
