"""Estimates of a study's jobs and their time before anything runs; no model is loaded.

Counts come from the config. Times come from similar finished jobs in the ledger, scaled by their workload, or else from
the rates in the study's file; without either, the time is reported as unknown.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sightline.errors import InputError
from sightline.study.execute import job_sort, max_rows, whole_number
from sightline.study.ledger import Ledger, LedgerEntry, has_ledger
from sightline.study.machines import RatesSpec
from sightline.study.plan import Job, StudyPlan, parse_plan
from sightline.study.resume import finished_manifest, job_folder

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


def trained_rows(plan: StudyPlan, piece: Job) -> int | None:
    """The number of pairs of a training, or of prompts if it has no pairs."""
    return max_rows(plan, piece.inputs.get("pairs") or piece.inputs.get("samples"))


def count_examples(plan: StudyPlan, piece: Job) -> int | None:
    """The number of pairs or prompts over all steps of a training, repetitions included."""
    rows = trained_rows(plan, piece)
    steps, epochs = (whole_number(piece, key, None) for key in ("max_steps", "epochs"))
    if steps is not None:
        return steps * rows_per_step(piece)
    return None if rows is None or epochs is None else epochs * rows


def rows_per_step(piece: Job) -> int:
    """The number of pairs or prompts of one training step."""
    batch = whole_number(piece, "batch_size", _BATCH) or _BATCH
    return batch * (whole_number(piece, "accumulation", _ACCUMULATION) or _ACCUMULATION)


def count_steps(plan: StudyPlan, piece: Job) -> int | None:
    """The number of steps of a training."""
    examples = count_examples(plan, piece)
    return None if examples is None else math.ceil(examples / rows_per_step(piece))


def count_answers(benchmark: str, limit: int | None) -> int | None:
    """The number of answers of a benchmark on its first `limit` images."""
    if benchmark.removesuffix("-counter") in _LAB:
        return _LAB[benchmark.removesuffix("-counter")] * (limit or _LAB_SCENES)
    if benchmark not in ANSWERS:
        return None
    answers, pictures = ANSWERS[benchmark]
    return math.ceil(answers * min(1.0, (limit or pictures) / pictures))


def workload(plan: StudyPlan, piece: Job) -> int | None:
    """The quantity that a job's time is proportional to: scenes, rows, training examples or answers."""
    if piece.kind == "train":
        return count_examples(plan, piece)
    if piece.kind == "eval":
        known = [count_answers(name, piece.settings["limit"]) for name in piece.settings["benchmarks"]]
        return sum(count for count in known if count is not None) if None not in known else None
    if job_sort(piece) == "builder":
        return max_rows(plan, piece.inputs.get("samples"))
    return max_rows(plan, piece.key)


def inequalities(plan: StudyPlan) -> Iterator[str]:
    """One sentence for each size in which the measured arms of a model would differ, as far as the config shows."""
    for model in plan.bases:
        runs = [run for run in plan.runs if run.model == model and run.eval is not None]
        first = {run.arm: plan.jobs[run.train] for run in reversed(runs)}  # of the first seed
        rows = {arm: trained_rows(plan, piece) for arm, piece in reversed(first.items())}
        seen = {arm: count_examples(plan, piece) for arm, piece in reversed(first.items())}
        for what, counts in (("pairs or prompts", rows), ("pairs or prompts taken in all steps", seen)):
            known = {arm: count for arm, count in counts.items() if count is not None}
            if len(set(known.values())) > 1:
                least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
                yield f"arms differ in {what}: from {known[least]} ({least}) to {known[most]} ({most})"


def refuse_unequal(plan: StudyPlan) -> list[str]:
    """The sentences of `inequalities`, if the study allows them.

    Raises:
        InputError: arms differ and the study does not allow it.
    """
    found = list(inequalities(plan))
    if found and plan.config.unequal == "refused":
        raise InputError(
            f"study: {'; '.join(found)}; make them equal (equal: {{pairs: N}} cuts every arm's set; max_steps,"
            " batch_size and accumulation the steps), or set unequal: allowed"
        )
    return found


N = TypeVar("N", int, float)

_NAMED = 5  # trainings of unknown size that are named
UNITS = {"samples": "scenes", "pairs": "rows", "train": "examples", "eval": "answers", "fetch": "repositories"}


@dataclass(frozen=True)
class Forecast:
    """Jobs by kind: how many there are, how many are done, and the workload and seconds of the rest, if known.

    `loads` excludes the `unmeasured` jobs, whose workload is unknown; `seconds` excludes the `open` ones, whose time is
    unknown.
    """

    arms: int
    models: int
    seeds: int
    jobs: Mapping[str, int]
    done: Mapping[str, int]
    loads: Mapping[str, int]
    unmeasured: Mapping[str, int]
    seconds: Mapping[str, float]
    open: Mapping[str, int]
    details: tuple[str, ...]
    device: str

    def lines(self) -> Iterator[str]:
        """The estimate as lines of text."""
        models = f"{self.models} models, " if self.models > 1 else ""
        count = sum(self.jobs.values())
        yield f"{models}{self.arms} arms, {self.seeds} seeds: {count} jobs, each done once"
        for kind, count in self.jobs.items():
            left = count - self.done[kind]
            yield f"  {kind}: {count}, of which {left} to do{self._load(kind) + self._time(kind) if left else ''}"
        yield from (f"  {detail}" for detail in self.details)
        total = sum(self.seconds.values())
        if total:
            lacking = sum(self.open.values())
            about = "at least" if lacking else "about"
            hours = f"{about} {total / 3600:.1f} hours" if total > 5400 else f"{about} {total / 60:.1f} min"
            rest = f", without {lacking} jobs of unknown time" if lacking else ""
            yield f"  in all: {hours} of one {self.device}{rest}"

    def _load(self, kind: str) -> str:
        if kind == "fetch":
            return ""  # only the number of jobs is known
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
        return guess + (f" and {unknown} of unknown time" if unknown else "")


def estimate(plan: StudyPlan, out: Path) -> Forecast:
    """Check what is done in `out`; estimate the rest from similar jobs, or else from the study's rates."""
    by_kind: dict[str, list[Job]] = defaultdict(list)
    for piece in plan.jobs.values():
        by_kind[piece.kind].append(piece)
    left = {
        kind: [piece for piece in jobs if finished_manifest(job_folder(piece, out)) is None]
        for kind, jobs in by_kind.items()
    }
    rates = _measured(plan, out)
    loads = {kind: [workload(plan, piece) for piece in jobs] for kind, jobs in left.items()}
    priced = {kind: [_seconds(plan, piece, rates) for piece in jobs] for kind, jobs in left.items()}
    stated = plan.config.rates
    return Forecast(
        arms=len(plan.config.all_arms()),
        models=len(plan.bases),
        seeds=len(plan.config.seeds),
        jobs={kind: len(jobs) for kind, jobs in by_kind.items()},
        done={kind: len(jobs) - len(left[kind]) for kind, jobs in by_kind.items()},
        loads={kind: _known_sum(each) for kind, each in loads.items()},
        unmeasured={kind: each.count(None) for kind, each in loads.items()},
        seconds={kind: _known_sum(each) for kind, each in priced.items()},
        open={kind: each.count(None) for kind, each in priced.items()},
        details=tuple(_details(plan, left.get("train", []))),
        device="process" if stated is None or rates else stated.device,
    )


def _known_sum(values: Iterable[N | None]) -> N | int:
    """The sum of the known values."""
    return sum(value for value in values if value is not None)


def _details(plan: StudyPlan, trainings: Iterable[Job]) -> Iterator[str]:
    """Steps, sampled answers, tokens (if the study states text lengths), and trainings of unknown size."""
    trainings = list(trainings)
    sizes = {piece.label: count_examples(plan, piece) for piece in trainings}
    examples, unknown = _known_sum(sizes.values()), [label for label, size in sizes.items() if size is None]
    at_least = "at least " if unknown else ""
    steps = _known_sum(count_steps(plan, piece) for piece in trainings)
    if steps:
        sampled = sum((count_examples(plan, piece) or 0) * _sampled(piece.settings["config"]) for piece in trainings)
        answers = f", {at_least}{sampled:,.0f} answers sampled by the policy" if sampled else ""
        yield f"in training: {at_least}{steps:,} steps{answers}"
    rates = plan.config.rates
    if examples and rates is not None and rates.prefix_tokens is not None and rates.answer_tokens is not None:
        tokens = examples * (rates.prefix_tokens + 2 * rates.answer_tokens)
        yield f"in training: {at_least}{tokens:,} tokens forward and backward"
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        yield f"unknown examples and steps: {', '.join(unknown[:_NAMED])}{more}; their rows are counted once they exist"


def _sampled(config: Mapping[str, Any]) -> float:
    """The number of answers that the policy samples per example, for an online stream or a rollout."""
    if "rl" in config:
        return float(config["rl"].get("answers", 1))
    source = config.get("source", {})
    if source.get("name") == "mixed":
        share = float(source.get("p", 0))
        first, second = (_sampled({"source": source.get(name, {})}) for name in ("first", "second"))
        return share * first + (1 - share) * second
    return {"online": float(source.get("answers", 2)), "bdhs": 1.0}.get(source.get("name", ""), 0.0)


def _like(piece: Job) -> tuple[str, ...]:
    """A key for jobs with the same time per unit: same sort, source of pairs, model and benchmarks."""
    settings, model = piece.settings, piece.inputs.get("model", "lab")
    if piece.kind == "train":
        config = settings["config"]
        batch = str(rows_per_step(piece))
        return ("train", model, "rl" if "rl" in config else config.get("source", {}).get("name", "offline"), batch)
    if piece.kind == "eval":
        return ("eval", model, *settings["benchmarks"])
    return (job_sort(piece), model, str(settings.get("builder", settings.get("layout", ""))))


def _measured(plan: StudyPlan, out: Path) -> dict[tuple[str, ...], float]:
    """Seconds per unit by kind of job, from the finished jobs in the directory's ledger."""
    if not has_ledger(out):
        return {}
    ledger = Ledger(out)
    try:
        entries, plans = ledger.entries(), [plan, *_readable(ledger.plans().values())]
    except InputError:
        return {}  # a damaged ledger, which the next run repairs and reports
    seconds: dict[tuple[str, ...], float] = defaultdict(float)
    loads: dict[tuple[str, ...], float] = defaultdict(float)
    seen: set[str] = set()
    for each in plans:
        for key, piece in each.jobs.items():
            entry: LedgerEntry | None = entries.get(key)
            load = workload(each, piece)
            if key in seen or entry is None or entry.state != "done" or not entry.seconds or not load:
                continue
            seen.add(key)
            seconds[_like(piece)] += entry.seconds
            loads[_like(piece)] += load
    return {like: total / loads[like] for like, total in seconds.items()}


def _readable(texts: Iterable[str]) -> Iterator[StudyPlan]:
    for text in texts:
        try:
            yield parse_plan(text)
        except ValueError:
            continue  # a plan of another version


def _seconds(plan: StudyPlan, piece: Job, measured: Mapping[tuple[str, ...], float]) -> float | None:
    load = workload(plan, piece)
    if load is None:
        return None
    rate = measured.get(_like(piece))
    if rate is None and plan.config.rates is not None:
        return _stated(plan.config.rates, piece, load)
    return None if rate is None else rate * load


def _stated(rates: RatesSpec, piece: Job, load: int) -> float | None:
    """Seconds by the study's stated rates."""
    sort = job_sort(piece)
    if sort == "eval":
        by_benchmark = [
            ((count_answers(name, piece.settings["limit"]) or 0), rates.answer.get(name, rates.answer.get("other")))
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
