"""The outcome of a study: every metric of every arm, its difference to the baseline, and its cost.

It reads the ledger and the directories of finished jobs, without a model or torch. `report` shows the numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.comparison import Evaluation, MetricDifference, compare_metrics, with_holm
from sightline.evals.directory import read_evaluation
from sightline.evals.statistics import RESAMPLES
from sightline.records.rows import Estimate, Row
from sightline.study.claims import ClaimFinding, ClaimSpec, correct_claims, judge_claim
from sightline.study.config import BASE, full_name
from sightline.study.headline import ContrastFinding, correct_contrasts, find_contrasts
from sightline.study.ledger import Ledger, LedgerEntry
from sightline.study.plan import Run, StudyPlan
from sightline.study.resume import job_folder


@dataclass(frozen=True)
class Evidence:
    """A study with its finished evaluations; arms have their full names.

    `bases` maps each model's name to the evaluation of the untrained model; `arms` maps each arm that is done with
    every seed to its evaluations, one per seed; `missing` names the other arms. `entries` are the jobs of all studies
    of the directory.
    """

    name: str
    plan: StudyPlan
    out: Path
    entries: Mapping[str, LedgerEntry]
    bases: Mapping[str, Evaluation]
    arms: Mapping[str, tuple[Evaluation, ...]]
    missing: tuple[str, ...]

    def baseline(self, model: str) -> str:
        """The arm that the other arms of this model are compared with."""
        return full_name(model, self.plan.config.baseline or BASE)

    def of_model(self, model: str) -> dict[str, tuple[Evaluation, ...]]:
        """The evaluations of a model's arms, the untrained model first (the same for every seed)."""
        untrained = (self.bases[model],) * len(self.plan.config.seeds)
        own = dict.fromkeys(run.arm for run in self.plan.runs if run.model == model and run.arm in self.arms)
        return {full_name(model, BASE): untrained} | {arm: self.arms[arm] for arm in own}

    def runs(self, arm: str) -> tuple[Run, ...]:
        """The runs of an arm, one per seed."""
        return tuple(run for run in self.plan.runs if run.arm == arm)

    def folder(self, key: str) -> Path:
        """The directory of a job of the plan."""
        return job_folder(self.plan.jobs[key], self.out)


def load_evidence(plan: StudyPlan, name: str, out: Path) -> Evidence:
    """Read the finished evaluations of a study.

    Raises:
        InputError: an untrained model or a baseline is not evaluated yet.
    """
    entries = Ledger(out).entries()
    if not all(is_done(entries, key) for key in plan.bases.values()):
        raise InputError(f"{out}: the untrained model is not evaluated yet; run `sightline study` to the end.")

    def read(key: str) -> Evaluation:
        return read_evaluation(job_folder(plan.jobs[key], out), plan.config.evaluate.benchmarks)

    missing = _missing(plan.runs, entries)
    arms: dict[str, tuple[Evaluation, ...]] = {}
    for run in plan.runs:
        if run.eval is not None and run.arm not in missing:
            arms[run.arm] = (*arms.get(run.arm, ()), read(run.eval))
    for model in plan.bases:
        baseline = full_name(model, plan.config.baseline or BASE)
        if plan.config.baseline is not None and baseline not in arms:
            raise InputError(
                f"{out}: the baseline {baseline!r} is not evaluated with every seed; run `sightline study` to the end."
            )
    bases = {model: read(key) for model, key in plan.bases.items()}
    return Evidence(name, plan, out, entries, bases, arms, missing)


def is_done(entries: Mapping[str, LedgerEntry], key: str) -> bool:
    """Whether a job is complete according to the ledger."""
    return key in entries and entries[key].state == "done"


def _missing(runs: Sequence[Run], entries: Mapping[str, LedgerEntry]) -> tuple[str, ...]:
    left = (run.arm for run in runs if run.eval is not None and not is_done(entries, run.eval))
    return tuple(dict.fromkeys(left))


class ArmFinding(MetricDifference):
    """One metric of one arm. `difference` is to the baseline, on the same images and with the same seeds.

    `p_holm` is corrected for every difference of the study whose metric has a direction.
    """

    arm: str
    benchmark: str
    metric: str
    value: Estimate


class Cost(Row):
    """The mean cost of an arm per seed: seconds of its jobs, shared ones included; rows are pairs or prompts."""

    arm: str
    seeds: int
    pair_seconds: float | None
    train_seconds: float | None
    eval_seconds: float | None
    rows: float | None
    steps: float | None
    answer_tokens: float | None


class Outcome(Row):
    """The outcome of a study. `baseline` is an arm of each model, or `base`, without the model's name.

    `unequal` has one sentence for each size in which the arms differ; `contrasts` are those of the headline.
    """

    name: str
    about: str
    baseline: str
    seeds: tuple[int, ...]
    findings: tuple[ArmFinding, ...]
    costs: tuple[Cost, ...]
    unequal: tuple[str, ...]
    missing: tuple[str, ...]
    claims: tuple[ClaimFinding, ...] = ()
    contrasts: tuple[ContrastFinding, ...] = ()


def read_outcome(plan: StudyPlan, name: str, out: Path) -> Outcome:
    """The outcome so far; `missing` names the arms that are not done with every seed.

    Raises:
        InputError: no evaluation is done yet.
    """
    return outcome(load_evidence(plan, name, out))


def outcome(evidence: Evidence, resamples: int = RESAMPLES) -> Outcome:
    """Every metric of the arms, compared with the baseline of its model."""
    config = evidence.plan.config
    findings: list[ArmFinding] = []
    claims: list[ClaimFinding] = []
    found_contrasts: list[ContrastFinding] = []
    for model in evidence.bases:
        own = evidence.of_model(model)
        baseline = own[evidence.baseline(model)]
        for arm, found in own.items():
            findings += _findings(arm, found, baseline, resamples)
        short = {arm.removeprefix(full_name(model, "")): runs for arm, runs in own.items()}
        claims += _claims(config.claims, model, short)
        found_contrasts += find_contrasts(config.headline, model, short, config.baseline or BASE, resamples)
    costs = tuple(_cost(evidence, arm) for arm in evidence.arms)
    return Outcome(
        name=evidence.name,
        about=config.about,
        baseline=config.baseline or BASE,
        seeds=config.seeds,
        findings=with_holm(findings, _is_quotable),
        costs=costs,
        unequal=_unequal(costs),
        missing=evidence.missing,
        claims=correct_claims(claims),
        contrasts=correct_contrasts(found_contrasts),
    )


def _claims(
    claims: Sequence[ClaimSpec], model: str, runs: Mapping[str, Sequence[Evaluation]]
) -> Iterator[ClaimFinding]:
    """Each claim tested with one model's arms, which have their short names."""
    for claim in claims:
        known = runs[BASE][0][claim.benchmark].metrics
        if claim.metric not in known:
            raise InputError(
                f"study: the claim {claim.says!r} is about {claim.metric!r}, which {claim.benchmark} does not measure;"
                f" its metrics are {', '.join(known)}"
            )
        named = claim.model_copy(update={"says": f"{model}: {claim.says}"}) if model else claim
        yield judge_claim(named, runs)


def _findings(arm: str, runs: Sequence[Evaluation], against: Sequence[Evaluation], resamples: int) -> list[ArmFinding]:
    """Every metric of an arm; without a difference where the arm is the baseline itself."""
    pairs = list(zip(against, runs, strict=True))
    return [
        ArmFinding.of(
            metric,
            found,
            is_baseline=against is runs,
            arm=arm,
            benchmark=benchmark,
            metric=name,
            value=found.after,
        )
        for benchmark in runs[0]
        for name, metric, found in compare_metrics(pairs, benchmark, resamples=resamples)
    ]


def _is_quotable(finding: ArmFinding) -> bool:
    """Whether a difference could be quoted as better or worse: the family of Holm's correction."""
    return finding.higher_is_better is not None and finding.difference is not None


def _cost(evidence: Evidence, arm: str) -> Cost:
    entries, runs = evidence.entries, evidence.runs(arm)
    trained = [entries[run.train] for run in runs]
    pairs = (evidence.plan.jobs[run.train].inputs.get("pairs", "") for run in runs)
    built = [entries[key] for key in pairs if key in entries]
    measured = [entries[run.eval] for run in runs if run.eval is not None]
    return Cost(
        arm=arm,
        seeds=len(runs),
        pair_seconds=_mean([entry.seconds for entry in built]),
        train_seconds=_mean([entry.seconds for entry in trained]),
        eval_seconds=_mean([entry.seconds for entry in measured]),
        rows=_mean([_rows(entry) for entry in trained]),
        steps=_mean([entry.counts.get("steps") for entry in trained]),
        answer_tokens=_mean([entry.counts.get("answer_tokens") for entry in trained]),
    )


def _unequal(costs: Sequence[Cost]) -> tuple[str, ...]:
    """Sizes in which arms differ: rows, steps, or answer tokens by more than a tenth."""
    sentences = []
    for name, label, slack in (
        ("rows", "pairs or prompts", 0.0),
        ("steps", "steps", 0.0),
        ("answer_tokens", "answer tokens", 0.1),
    ):
        known = {cost.arm: value for cost in costs if (value := getattr(cost, name)) is not None}
        if known and max(known.values()) > (1 + slack) * min(known.values()):
            least, most = min(known, key=known.__getitem__), max(known, key=known.__getitem__)
            sentences.append(f"Arms differ in {label}: from {known[least]:g} ({least}) to {known[most]:g} ({most}).")
    return tuple(sentences)


def _rows(entry: LedgerEntry) -> float | None:
    return next((count for name, count in entry.counts.items() if name.endswith("_trained_on")), None)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
