"""`sightline monitor`: the rows of a log that are new, held against a baseline; state, JSON and page beside each other.

A second run goes on where the first stopped, with the numbers that one run over all would have. What is watched is
`measures`, the mathematics `betting`.
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
from sightline.apps.monitor.measures import HALLUCINATION, MEASURES, Measure, hallucination, vocabulary_of
from sightline.apps.monitor.metric_monitor import Findings, MetricMonitor, finding_of
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
    """The watch as a whole."""

    alpha: float = Field(
        default=0.05, gt=0, lt=1, description="chance that anything ever alarms without drift, for the life of --out"
    )
    benchmarks: tuple[str, ...] = Field(default=(), description="of a baseline that is an evaluation; all where empty")
    least: int = Field(default=20, ge=1, description="a number with fewer values in the baseline is not watched")
    seed: int = Field(default=0, ge=0, description="of ties and of the sample that is judged")


STATE, RESULTS, PAGE = "state.json", "monitor.json", "monitor.html"
_ROWS_AT_ONCE = 256
#: Pictures are remembered by so many hashes: one that comes back within them counts once.
_REMEMBERED = 10_000
_EXAMPLES = 3


@dataclass
class _State:
    """Everything between two runs."""

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
    """Read what is new in `log`, write state, `monitor.json` and `monitor.html` into `out`, and return what was found.

    `key` is a hash of how the judge is used, empty without one.

    Raises:
        InputError: no such log or baseline, a broken row, or `out` holds another watch.
    """
    rows = read_log(log)  # at once, so that a wrong directory is told before anything is written
    identity = hash_json([config.model_dump(mode="json"), key, baseline_hash(baseline, config.benchmarks)])
    if (out / STATE).exists():
        state = _read(out / STATE, identity, config)
        rows = read_log(log, state.place)
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"output directory {out} cannot be made ({error.strerror}); choose another") from error
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
        findings=tuple(finding_of(watch, config.alpha / len(state.watches)) for watch in state.watches),
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
    """Hold rows of the log against the baseline."""
    answered = [row for row in rows if row.status == 200]
    judged = _judged(answered, log, sampler)
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


def _judged(rows: Sequence[LoggedRequest], log: Path | None, sampler: "Sampler | None") -> dict[str, float | None]:
    return {} if sampler is None else sampler.judge(sampler.draw(rows), log)


def _begin(
    rows: Sequence[LoggedRequest], baseline: Path, config: MonitorConfig, sampler: "Sampler | None", identity: str
) -> _State:
    """The state before the first row: the baseline's ranks, and who shares alpha."""
    # Every second prompt teaches what words are usual, and the others are ranked by that.
    words = [1.0] * BUCKETS
    for row in rows[::2]:
        for bucket, count in row.prompt_stats.buckets.items():
            words[bucket] += count
    ranked = {id(row) for row in rows[1::2]}
    judged = _judged(rows, baseline, sampler)
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
            f"baseline {baseline} has {len(rows)} answered rows, and {config.least} values of a number are needed to "
            "watch it; name a longer one, or set least lower"
        )
    bar = math.log(len(watched) / config.alpha)
    watches = [_watch(measure, values[measure.name], bar, config.seed) for measure in watched]
    few = {
        measure.name: f"{len(values[measure.name])} values in the baseline, {config.least} are needed"
        for measure in measures
        if measure not in watched
    }
    return _State(identity, watches, few, words)


def _watch(measure: Measure, values: Sequence[float], bar: float, seed: int) -> MetricMonitor:
    counts: dict[int, int] = {}
    for value in values:
        counts[measure.grid(value)] = counts.get(measure.grid(value), 0) + 1
    return MetricMonitor(measure, bar, seed, Ranks.of(counts), (len(values), math.fsum(values)))


def _measures(words: list[float], is_judged: bool) -> list[Measure]:
    return [*MEASURES, vocabulary_of(words), *([hallucination()] if is_judged else [])]


def _read(path: Path, identity: str, config: MonitorConfig) -> _State:
    """The state that an earlier run left.

    Raises:
        InputError: it is of another baseline or other settings, or damaged.
    """
    told = read_json(path)
    if not isinstance(told, dict) or told.get("identity") != identity:
        raise InputError(f"{path} belongs to another baseline, judge or config; choose another --out, or delete it")
    try:
        by_name = {measure.name: measure for measure in _measures(told["words"], is_judged=True)}
        bar = math.log(len(told["watches"]) / config.alpha)
        return _State(
            identity,
            [MetricMonitor.restored(by_name[name], bar, config.seed, kept) for name, kept in told["watches"].items()],
            told["unwatched"],
            told["words"],
            LogPosition.model_validate(told["place"]),
            int(told["rows"]),
            int(told["failed"]),
            int(told["judged"]),
            int(told["unscored"]),
            deque(told["seen"], maxlen=_REMEMBERED),
            str(told["last"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error!r}); delete the directory and read the log anew") from error


def _write(path: Path, state: _State) -> None:
    told: dict[str, Any] = {
        "identity": state.identity,
        "place": state.place,
        "watches": {watch.measure.name: watch.state() for watch in state.watches},
        "unwatched": state.unwatched,
        "words": state.words,
        "seen": list(state.seen),
        "last": state.last,
    }
    told |= {"rows": state.rows, "failed": state.failed, "judged": state.judged, "unscored": state.unscored}
    write_json(path, told)
