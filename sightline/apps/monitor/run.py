"""`sightline monitor`: compare the new rows of a log with a baseline; writes state, JSON and an HTML page.

A rerun continues after the last row read, and gives the numbers of one run over all rows. `measures` defines the
monitored numbers, `betting` the tests.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

import sightline
from sightline.apps.monitor.baseline import baseline_hash, read_baseline
from sightline.apps.monitor.betting import Ranks
from sightline.apps.monitor.measures import HALLUCINATION, MEASURES, Measure, hallucination, vocabulary_from_counts
from sightline.apps.monitor.metric_monitor import Findings, MetricMonitor, to_finding
from sightline.apps.monitor.page import render
from sightline.config import Config
from sightline.data.request_log import LogPosition, read_log
from sightline.errors import InputError
from sightline.records.hashing import hash_json
from sightline.records.ratings import BUCKETS, LoggedRequest
from sightline.records.store import atomic_write, read_json, write_json

if TYPE_CHECKING:
    from sightline.apps.monitor.judging import Sampler


class MonitorConfig(Config):
    """Settings of a monitor."""

    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="probability of any false alarm over the lifetime of --out"
    )
    benchmarks: tuple[str, ...] = Field(default=(), description="benchmarks of a baseline evaluation; empty: all")
    least: int = Field(default=20, ge=1, description="numbers with fewer baseline values are not monitored")
    seed: int = Field(default=0, ge=0, description="seed of tie breaking and of the judged sample")


STATE, RESULTS, PAGE = "state.json", "monitor.json", "monitor.html"
_ROWS_AT_ONCE = 256
#: Picture hashes remembered: a picture that recurs within them counts once.
_REMEMBERED = 10_000
_EXAMPLES = 3


@dataclass
class _State:
    """The state between two runs."""

    identity: str
    watches: list[MetricMonitor]
    unwatched: dict[str, str]
    words: list[float]
    place: LogPosition = field(default_factory=LogPosition)
    rows: int = 0
    failed: int = 0
    judged: int = 0
    unscored: int = 0
    seen: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    last: str = ""


def monitor(
    log: Path, baseline: Path, out: Path, config: MonitorConfig, sampler: "Sampler | None", key: str
) -> Findings:
    """Read the new rows of `log`, write state, `monitor.json` and `monitor.html` into `out`, and return the findings.

    `key` is a hash of the judge's settings, empty without a judge.

    Raises:
        InputError: no such log or baseline, a broken row, or `out` belongs to another monitor.
    """
    rows = read_log(log)  # first, so that a wrong directory fails before anything is written
    identity = hash_json([config.model_dump(mode="json"), key, baseline_hash(baseline, config.benchmarks)])
    if (out / STATE).exists():
        state = _read(out / STATE, identity, config)
        rows = read_log(log, state.place)
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output directory {out} cannot be created ({error.strerror}); choose another") from error
        state = _begin(list(read_baseline(baseline, config.benchmarks)), baseline, config, sampler, identity)
    if sampler is not None:
        sampler.renew()
    examples: dict[str, list[tuple[float, LoggedRequest]]] = {}
    before = state.rows
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        _take([row for row, _ in part], log, state, config, sampler, examples)
        state.place = part[-1][1]
        _write(out / STATE, state)
    _write(out / STATE, state)
    worst = {name: [row for _, row in found] for name, found in examples.items()}
    findings = Findings(
        alpha=config.alpha,
        alpha_each=config.alpha / max(1, len(state.watches)),
        rows=state.rows,
        new_rows=state.rows - before,
        failed=state.failed,
        judged=state.judged,
        unscored=state.unscored,
        last=state.last,
        findings=tuple(to_finding(watch, config.alpha / len(state.watches)) for watch in state.watches),
        unwatched=state.unwatched,
        version=sightline.__version__,
    )
    write_json(out / RESULTS, findings.model_dump(mode="json"))
    with atomic_write(out / PAGE) as temporary:
        temporary.write_text(render(findings, state.watches, worst), encoding="utf-8")
    return findings


def _take(
    rows: Sequence[LoggedRequest],
    log: Path,
    state: _State,
    config: MonitorConfig,
    sampler: "Sampler | None",
    examples: dict[str, list[tuple[float, LoggedRequest]]],
) -> None:
    """Compare rows of the log with the baseline."""
    answered = [row for row in rows if row.status == 200]
    judged = _judge_rows(answered, log, sampler)
    state.judged += len(judged)
    state.unscored += sum(value is None for value in judged.values())
    state.rows += len(rows)
    state.failed += len(rows) - len(answered)
    state.last = rows[-1].time
    alpha = config.alpha / max(1, len(state.watches))
    for row in answered:
        is_new = not row.images or row.images[0].sha256[:16] not in state.seen
        if row.images and is_new:
            state.seen.append(row.images[0].sha256[:16])
        for watch in state.watches:
            value = _value(watch.measure, row, judged, is_new)
            if value is None:
                continue
            p = watch.take(row, value, alpha)
            found = examples.setdefault(watch.measure.name, [])
            found.append((min(p, 1 - p), row))
            found.sort(key=lambda one: one[0])
            del found[_EXAMPLES:]


def _value(measure: Measure, row: LoggedRequest, judged: dict[str, float | None], is_new: bool) -> float | None:
    if measure.once and not is_new:
        return None
    return judged.get(row.id) if measure.name == HALLUCINATION else measure.value(row)


def _judge_rows(rows: Sequence[LoggedRequest], log: Path | None, sampler: "Sampler | None") -> dict[str, float | None]:
    return {} if sampler is None else sampler.judge(sampler.draw(rows), log)


def _begin(
    rows: Sequence[LoggedRequest], baseline: Path, config: MonitorConfig, sampler: "Sampler | None", identity: str
) -> _State:
    """The state before the first row: the baseline's ranks, and the numbers that share alpha."""
    # Every second prompt fits the word frequencies; the others are ranked under them.
    words = [1.0] * BUCKETS
    for row in rows[::2]:
        for bucket, count in row.prompt_stats.buckets.items():
            words[bucket] += count
    ranked = {id(row) for row in rows[1::2]}
    judged = _judge_rows(rows, baseline, sampler)
    measures = _measures(words, sampler is not None)
    values: dict[str, list[float]] = {measure.name: [] for measure in measures}
    seen: set[str] = set()
    for row in rows:
        is_new = not row.images or row.images[0].sha256 not in seen
        seen.update(picture.sha256 for picture in row.images[:1])
        for measure in measures:
            value = _value(measure, row, judged, is_new)
            if value is not None and (measure.name != "vocabulary" or id(row) in ranked):
                values[measure.name].append(value)
    watched = [measure for measure in measures if len(values[measure.name]) >= config.least]
    if not watched:
        raise InputError(
            f"baseline {baseline} has only {len(rows)} answered rows; monitoring a number needs "
            f"{config.least} values: choose a longer baseline, or lower least"
        )
    bar = math.log(len(watched) / config.alpha)
    watches = [_watch(measure, values[measure.name], bar, config.seed) for measure in watched]
    few = {
        measure.name: f"{len(values[measure.name])} baseline values, {config.least} needed"
        for measure in measures
        if measure not in watched
    }
    return _State(identity, watches, few, words)


def _watch(measure: Measure, values: Sequence[float], bar: float, seed: int) -> MetricMonitor:
    counts: dict[int, int] = {}
    for value in values:
        counts[measure.grid(value)] = counts.get(measure.grid(value), 0) + 1
    return MetricMonitor(measure, bar, seed, Ranks.from_counts(counts), (len(values), math.fsum(values)))


def _measures(words: list[float], is_judged: bool) -> list[Measure]:
    return [*MEASURES, vocabulary_from_counts(words), *([hallucination()] if is_judged else [])]


def _read(path: Path, identity: str, config: MonitorConfig) -> _State:
    """The state of the earlier run.

    Raises:
        InputError: it belongs to another baseline or other settings, or is damaged.
    """
    saved = read_json(path)
    if not isinstance(saved, dict) or saved.get("identity") != identity:
        raise InputError(f"{path} belongs to another baseline, judge or config; choose another --out, or delete it")
    try:
        by_name = {measure.name: measure for measure in _measures(saved["words"], is_judged=True)}
        bar = math.log(len(saved["watches"]) / config.alpha)
        return _State(
            identity,
            [
                MetricMonitor.from_state(by_name[name], bar, config.seed, kept)
                for name, kept in saved["watches"].items()
            ],
            saved["unwatched"],
            saved["words"],
            LogPosition.model_validate(saved["place"]),
            int(saved["rows"]),
            int(saved["failed"]),
            int(saved["judged"]),
            int(saved["unscored"]),
            deque(saved["seen"], maxlen=_REMEMBERED),
            str(saved["last"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error!r}); delete the directory and run again") from error


def _write(path: Path, state: _State) -> None:
    content: dict[str, Any] = {
        "identity": state.identity,
        "place": state.place,
        "watches": {watch.measure.name: watch.state() for watch in state.watches},
        "unwatched": state.unwatched,
        "words": state.words,
        "seen": list(state.seen),
        "last": state.last,
    }
    content |= {"rows": state.rows, "failed": state.failed, "judged": state.judged, "unscored": state.unscored}
    write_json(path, content)
