"""What a study would do and about how long that takes, before anything is begun; no model is opened.

Counts come from the config (`counts`). Seconds are those of like pieces that the ledger knows, by what they count;
where it knows none, of the rates that the study's file states; else nothing is guessed.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sightline.builders.registry import get_entry
from sightline.config.problems import shorten
from sightline.errors import InputError
from sightline.study.config import RatesSpec
from sightline.study.execute import sort_of
from sightline.study.ledger import Ledger, LedgerEntry, has_ledger
from sightline.study.plan import Job, StudyPlan, plan_of_text
from sightline.study.resume import finished_manifest, folder_of

#: Benchmark -> (answers, pictures) of the official files; of the lab's, of one scene.
ANSWERS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("pope", "pope-aokvqa", "pope-gqa"), (9000, 500)),
    **dict.fromkeys(("mmhal", "mmhal-v"), (96, 96)),
    "object-halbench": (300, 300),
    "llava-bench": (60, 24),
    "mm-vet": (218, 200),
    "textvqa": (5000, 3166),
    "gqa": (12578, 398),
    "amber": (15220, 1004),
    "amber-generative": (1004, 1004),
    "amber-discriminative": (14216, 1004),
    "mme": (2374, 1187),
}
_LAB = {"lab-chair": 1, "lab-vqa": 3, "lab-pope-random": 6, "lab-pope-popular": 6, "lab-pope-adversarial": 6}
_LAB_SCENES = 500  # of a lab benchmark without a limit
_BATCH, _ACCUMULATION = 8, 1  # TrainConfig's own, where a config does not say


def rows_of(plan: StudyPlan, place: str | None) -> int | None:
    """The most pairs or samples that a piece can hold."""
    piece = plan.pieces.get(place or "")
    if piece is None:
        return None
    settings = piece.settings
    if "take" in settings:
        return int(settings["take"]["count"])
    if sort_of(piece) == "samples":
        return int(settings["count"])
    if "layout" in settings:
        source = plan.config.pairs[piece.label].files
        return None if source is None else source.rows
    if sort_of(piece) == "average":
        return rows_of(plan, piece.inputs["first"])
    if sort_of(piece) == "builder":
        each, below = _pairs_each(piece), rows_of(plan, piece.inputs.get("samples"))
        return None if each is None or below is None else below * each
    return None


def trained_rows(plan: StudyPlan, piece: Job) -> int | None:
    """The pairs, or prompts where there are none, that a training is given."""
    return rows_of(plan, piece.inputs.get("pairs") or piece.inputs.get("samples"))


def examples_of(plan: StudyPlan, piece: Job) -> int | None:
    """The pairs or prompts that a training takes in all its steps, each as often as it comes."""
    config, rows = piece.settings["config"], trained_rows(plan, piece)
    steps, epochs = (_whole(config, key, None, piece) for key in ("max_steps", "epochs"))
    if steps is not None:
        return steps * step_rows(piece)
    return None if rows is None or epochs is None else epochs * rows


def step_rows(piece: Job) -> int:
    """The pairs or prompts of one step of a training."""
    config = piece.settings["config"]
    batch = _whole(config, "batch_size", _BATCH, piece) or _BATCH
    return batch * (_whole(config, "accumulation", _ACCUMULATION, piece) or _ACCUMULATION)


def _pairs_each(piece: Job) -> int | None:
    """The most pairs that a builder makes of a sample, by its entry in the registry."""
    most = get_entry(piece.settings["builder"]).most
    return _whole(piece.settings["config"], most, 1, piece) if isinstance(most, str) else most


def _whole(config: Mapping[str, Any], key: str, default: int | None, piece: Job) -> int | None:
    """A number of a config that nothing has checked yet; None where it is left out or null.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    value = config.get(key, default)
    if value is None:
        return None
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if not is_whole or isinstance(value, bool) or value < 1:
        raise InputError(f"study: {piece.kind} {piece.label}: {key} = {shorten(value)} is no whole number from 1 on")
    return int(value)


def steps_of(plan: StudyPlan, piece: Job) -> int | None:
    """The steps of a training."""
    examples = examples_of(plan, piece)
    return None if examples is None else math.ceil(examples / step_rows(piece))


def answers_of(benchmark: str, limit: int | None) -> int | None:
    """The answers that a benchmark asks for, on its first `limit` pictures."""
    if benchmark.removesuffix("-counter") in _LAB:
        return _LAB[benchmark.removesuffix("-counter")] * (limit or _LAB_SCENES)
    if benchmark not in ANSWERS:
        return None
    answers, pictures = ANSWERS[benchmark]
    return math.ceil(answers * min(1.0, (limit or pictures) / pictures))


def load_of(plan: StudyPlan, piece: Job) -> int | None:
    """What a piece's time grows with: scenes, rows, examples of all steps, answers."""
    if piece.kind == "train":
        return examples_of(plan, piece)
    if piece.kind == "eval":
        known = [answers_of(name, piece.settings["limit"]) for name in piece.settings["benchmarks"]]
        return sum(count for count in known if count is not None) if None not in known else None
    if sort_of(piece) == "builder":
        return rows_of(plan, piece.inputs.get("samples"))
    return rows_of(plan, piece.key)


def inequalities(plan: StudyPlan) -> Iterator[str]:
    """One sentence for each thing in which the measured arms of a model would differ, as far as the config says."""
    for model in plan.bases:
        runs = [run for run in plan.runs if run.model == model and run.eval is not None]
        first = {run.arm: plan.pieces[run.train] for run in reversed(runs)}  # of the first seed
        rows = {arm: trained_rows(plan, piece) for arm, piece in reversed(first.items())}
        seen = {arm: examples_of(plan, piece) for arm, piece in reversed(first.items())}
        for what, counts in (("pairs or prompts", rows), ("pairs or prompts taken in all steps", seen)):
            known = {arm: count for arm, count in counts.items() if count is not None}
            if len(set(known.values())) > 1:
                least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
                yield f"arms differ in {what}: from {known[least]} ({least}) to {known[most]} ({most})"


def refuse_unequal(plan: StudyPlan) -> list[str]:
    """The sentences of `inequalities`, where the study allows them.

    Raises:
        InputError: there are some, and it does not.
    """
    found = list(inequalities(plan))
    if found and plan.config.unequal == "refused":
        raise InputError(
            f"study: {'; '.join(found)}; make them equal (equal: {{pairs: N}} cuts every arm's set; max_steps,"
            " batch_size and accumulation the steps), or say unequal: allowed"
        )
    return found


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
    by_kind: dict[str, list[Job]] = defaultdict(list)
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


def _details(plan: StudyPlan, trainings: Iterable[Job]) -> Iterator[str]:
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


def _like(piece: Job) -> tuple[str, ...]:
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
            entry: LedgerEntry | None = entries.get(key)
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


def _seconds(plan: StudyPlan, piece: Job, measured: Mapping[tuple[str, ...], float]) -> float | None:
    load = load_of(plan, piece)
    if load is None:
        return None
    rate = measured.get(_like(piece))
    if rate is None and plan.config.rates is not None:
        return _stated(plan.config.rates, piece, load)
    return None if rate is None else rate * load


def _stated(rates: RatesSpec, piece: Job, load: int) -> float | None:
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
