"""What a study would do and about how long that takes, before anything is begun; no model is opened.

Counts come from the config (`counts`). Seconds are those of like pieces that the ledger knows, by what they count;
where it knows none, of the rates that the study's file states; else nothing is guessed.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sightline.errors import InputError
from sightline.study.config import RatesSpec
from sightline.study.counts import answers_of, examples_of, load_of, step_rows, steps_of
from sightline.study.finished import finished_manifest, folder_of
from sightline.study.ledger import Entry, Ledger, has_ledger
from sightline.study.plan import Piece, StudyPlan, plan_of_text
from sightline.study.work import sort_of

N = TypeVar("N", int, float)

_NAMED = 5  # trainings of unknown size that are named
UNITS = {"samples": "scenes", "pairs": "rows", "train": "examples", "eval": "answers", "fetch": "repositories"}


@dataclass(frozen=True)
class Forecast:
    """Pieces by kind: how many there are and are done, what is to do of each, and its seconds, where they are known.

    `loads` and `seconds` are of pieces that are left, without those `unmeasured`, whose load nothing says, and those
    `open`, whose time nothing says.
    """

    arms: int
    models: int
    seeds: int
    pieces: Mapping[str, int]
    done: Mapping[str, int]
    loads: Mapping[str, int]
    unmeasured: Mapping[str, int]
    seconds: Mapping[str, float]
    open: Mapping[str, int]
    details: tuple[str, ...]
    device: str

    def lines(self) -> Iterator[str]:
        """The plan as people read it."""
        models = f"{self.models} models, " if self.models > 1 else ""
        count = sum(self.pieces.values())
        yield f"{models}{self.arms} arms, {self.seeds} seeds: {count} pieces of work, each done once"
        for kind, count in self.pieces.items():
            left = count - self.done[kind]
            yield f"  {kind}: {count}, of which {left} to do{self._load(kind) + self._time(kind) if left else ''}"
        yield from (f"  {detail}" for detail in self.details)
        total = sum(self.seconds.values())
        if total:
            lacking = sum(self.open.values())
            about = "at least" if lacking else "about"
            hours = f"{about} {total / 3600:.1f} hours" if total > 5400 else f"{about} {total / 60:.1f} min"
            rest = f", without {lacking} pieces of which nothing is known" if lacking else ""
            yield f"  in all: {hours} of one {self.device}{rest}"

    def _load(self, kind: str) -> str:
        if kind == "fetch":
            return ""  # pieces are all that can be counted
        load, unknown = self.loads[kind], self.unmeasured[kind]
        if not unknown:
            return f" ({load:,} {UNITS[kind]})" if load else ""
        if not load:
            return f" (unknown {UNITS[kind]})"
        return f" (at least {load:,} {UNITS[kind]}, with {unknown} of unknown size)"

    def _time(self, kind: str) -> str:
        seconds, unknown = self.seconds[kind], self.open[kind]
        if not seconds:
            return ", time not known yet" if unknown else ""
        guess = f", {'at least' if unknown else 'about'} {seconds / 60:.1f} min"
        return guess + (f" and {unknown} of which nothing is known" if unknown else "")


def estimate(plan: StudyPlan, out: Path) -> Forecast:
    """Look at what is done in `out`, and price the rest by pieces of a like sort, or else by the study's own rates."""
    by_kind: dict[str, list[Piece]] = defaultdict(list)
    for piece in plan.pieces.values():
        by_kind[piece.kind].append(piece)
    left = {
        kind: [piece for piece in pieces if finished_manifest(folder_of(piece, out)) is None]
        for kind, pieces in by_kind.items()
    }
    rates = _measured(plan, out)
    loads = {kind: [load_of(plan, piece) for piece in pieces] for kind, pieces in left.items()}
    priced = {kind: [_seconds(plan, piece, rates) for piece in pieces] for kind, pieces in left.items()}
    stated = plan.config.rates
    return Forecast(
        arms=len(plan.config.all_arms()),
        models=len(plan.bases),
        seeds=len(plan.config.seeds),
        pieces={kind: len(pieces) for kind, pieces in by_kind.items()},
        done={kind: len(pieces) - len(left[kind]) for kind, pieces in by_kind.items()},
        loads={kind: _known_sum(each) for kind, each in loads.items()},
        unmeasured={kind: each.count(None) for kind, each in loads.items()},
        seconds={kind: _known_sum(each) for kind, each in priced.items()},
        open={kind: each.count(None) for kind, each in priced.items()},
        details=tuple(_details(plan, left.get("train", []))),
        device="process" if stated is None or rates else stated.device,
    )


def _known_sum(values: Iterable[N | None]) -> N | int:
    """The sum of those that are known."""
    return sum(value for value in values if value is not None)


def _details(plan: StudyPlan, trainings: Iterable[Piece]) -> Iterator[str]:
    """Steps, sampled answers, and tokens where the study says how long its texts are; trainings of unknown size."""
    trainings = list(trainings)
    sizes = {piece.label: examples_of(plan, piece) for piece in trainings}
    examples, unknown = _known_sum(sizes.values()), [label for label, size in sizes.items() if size is None]
    at_least = "at least " if unknown else ""
    steps = _known_sum(steps_of(plan, piece) for piece in trainings)
    if steps:
        sampled = sum((examples_of(plan, piece) or 0) * _sampled(piece.settings["config"]) for piece in trainings)
        answers = f", {at_least}{sampled:,.0f} answers sampled by the policy" if sampled else ""
        yield f"in training: {at_least}{steps:,} steps{answers}"
    rates = plan.config.rates
    if examples and rates is not None and rates.prefix_tokens is not None and rates.answer_tokens is not None:
        tokens = examples * (rates.prefix_tokens + 2 * rates.answer_tokens)
        yield f"in training: {at_least}{tokens:,} tokens forward and backward"
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        yield f"unknown examples and steps: {', '.join(unknown[:_NAMED])}{more}; their rows are counted when made"


def _sampled(config: Mapping[str, Any]) -> float:
    """The answers that a policy writes for one example: those of an online stream, or of a rollout."""
    if "rl" in config:
        return float(config["rl"].get("answers", 1))
    source = config.get("source", {})
    if source.get("name") == "mixed":
        share = float(source.get("p", 0))
        first, second = (_sampled({"source": source.get(name, {})}) for name in ("first", "second"))
        return share * first + (1 - share) * second
    return {"online": float(source.get("answers", 2)), "bdhs": 1.0}.get(source.get("name", ""), 0.0)


def _like(piece: Piece) -> tuple[str, ...]:
    """Pieces whose seconds grow alike: of one sort, with one source of pairs, one model, the same benchmarks."""
    settings, model = piece.settings, piece.inputs.get("model", "lab")
    if piece.kind == "train":
        config = settings["config"]
        batch = str(step_rows(piece))
        return ("train", model, "rl" if "rl" in config else config.get("source", {}).get("name", "offline"), batch)
    if piece.kind == "eval":
        return ("eval", model, *settings["benchmarks"])
    return (sort_of(piece), model, str(settings.get("builder", settings.get("layout", ""))))


def _measured(plan: StudyPlan, out: Path) -> dict[tuple[str, ...], float]:
    """Seconds of one unit, by sorts of pieces, from all that the ledger says was done in the directory."""
    if not has_ledger(out):
        return {}
    ledger = Ledger(out)
    try:
        entries, plans = ledger.entries(), [plan, *_readable(ledger.plans().values())]
    except InputError:
        return {}  # a damaged ledger, which a run mends and tells of
    seconds: dict[tuple[str, ...], float] = defaultdict(float)
    loads: dict[tuple[str, ...], float] = defaultdict(float)
    seen: set[str] = set()
    for each in plans:
        for key, piece in each.pieces.items():
            entry: Entry | None = entries.get(key)
            load = load_of(each, piece)
            if key in seen or entry is None or entry.state != "done" or not entry.seconds or not load:
                continue
            seen.add(key)
            seconds[_like(piece)] += entry.seconds
            loads[_like(piece)] += load
    return {like: total / loads[like] for like, total in seconds.items()}


def _readable(texts: Iterable[str]) -> Iterator[StudyPlan]:
    for text in texts:
        try:
            yield plan_of_text(text)
        except ValueError:
            continue  # another version's, whose pieces tell nothing here


def _seconds(plan: StudyPlan, piece: Piece, measured: Mapping[tuple[str, ...], float]) -> float | None:
    load = load_of(plan, piece)
    if load is None:
        return None
    rate = measured.get(_like(piece))
    if rate is None and plan.config.rates is not None:
        return _stated(plan.config.rates, piece, load)
    return None if rate is None else rate * load


def _stated(rates: RatesSpec, piece: Piece, load: int) -> float | None:
    """By the study's own rates."""
    sort = sort_of(piece)
    if sort == "eval":
        by_benchmark = [
            ((answers_of(name, piece.settings["limit"]) or 0), rates.answer.get(name, rates.answer.get("other")))
            for name in piece.settings["benchmarks"]
        ]
        known = [count * rate for count, rate in by_benchmark if rate is not None]
        return sum(known) if len(known) == len(by_benchmark) else None
    if sort == "train":
        config = piece.settings["config"]
        name = "rl" if "rl" in config else config.get("source", {}).get("name", "offline")
        rate = rates.example.get(name, rates.example.get("other"))
    else:
        rate = rates.row.get(str(piece.settings.get("builder", sort)), rates.row.get("other"))
    return None if rate is None else rate * load
