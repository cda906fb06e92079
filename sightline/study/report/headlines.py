"""Sentences of a study's headline: what each contrast means for a user, and its numbers. Nothing is computed here."""

from collections.abc import Sequence
from typing import Protocol

from sightline.evals.comparison import MetricDifference
from sightline.report.formatting import difference_text, interval_text, p_text
from sightline.study.headline import ContrastFinding
from sightline.study.report.words import listed, name


class WithContrasts(Protocol):
    """A study's outcome, or what was published of it."""

    @property
    def baseline(self) -> str: ...
    @property
    def seeds(self) -> tuple[int, ...]: ...
    @property
    def contrasts(self) -> tuple[ContrastFinding, ...]: ...


def headline_sentence(outcome: WithContrasts) -> str:
    """What the contrasts mean, one sentence each; empty for a study that declares none."""
    return " ".join(f"{found.title}, {_meaning(found, outcome.baseline)}." for found in outcome.contrasts)


def contrast_sentences(outcome: WithContrasts) -> list[str]:
    """The numbers behind the headline: what was measured, then the differences and intervals of each contrast."""
    done = [found for found in outcome.contrasts if found.difference is not None]
    if not done:
        return []
    return [_measure(outcome, done), *(_numbers(found, len(outcome.contrasts)) for found in done)]


def _meaning(found: ContrastFinding, baseline: str) -> str:
    arm, against = found.arm_label, found.against_label
    match found.meaning:
        case "method" if found.ratio is not None:
            return f"{arm} helps, and {against} has only about {100 * found.ratio:.0f} % of its effect"
        case "method":
            return f"{arm} helps, and {against} {_helps_not(found.alternative)}"
        case "alternative":
            return f"{against} helps more than {arm}, so {against} is enough"
        case "both":
            return f"{arm} and {against} both help, and no difference between them is shown, so {against} may be enough"
        case "method alone":
            return f"{arm} helps, and {against} {_helps_not(found.alternative)}; which is better stays open"
        case "alternative alone":
            return f"{against} helps, and {arm} {_helps_not(found.method)}, so {against} may be enough"
        case "neither":
            return f"neither {arm} nor {against} is shown to help"
        case "harm":
            sides = ((arm, found.method), (against, found.alternative))
            worse = listed([label for label, side in sides if side is not None and side.verdict == "worse"])
            return f"no arm is shown to help, and against {name(baseline)} the result is worse with {worse}"
        case "not estimable":
            return f"{arm} and {against} cannot be compared, because there is no interval"
        case "not done":
            return f"{arm} and {against} are not compared yet, because not every seed is done"


def _helps_not(side: MetricDifference | None) -> str:
    return "makes it worse" if side is not None and side.verdict == "worse" else "is not shown to"


def _measure(outcome: WithContrasts, done: Sequence[ContrastFinding]) -> str:
    """The metric, the size of the evaluation, and what the baseline has."""
    first = done[0]
    assert first.method is not None
    seeds = "one seed" if len(outcome.seeds) == 1 else f"{len(outcome.seeds)} seeds"
    scale = "in points" if first.method.unit == "share" else "in its own unit"
    better = "more is better" if first.method.higher_is_better else "less is better"
    return (
        f"{first.method.label} ({first.benchmark}; {better}): differences to {name(outcome.baseline)} {scale},"
        f" with 95 % intervals over {first.method.images:,} images and {seeds}."
    )


def _numbers(found: ContrastFinding, contrasts: int) -> str:
    assert found.method is not None and found.alternative is not None and found.difference is not None
    p = found.difference.p_holm
    corrected = "" if p is None else f", p {p_text(p)}"
    family = f" by Holm over {contrasts} contrasts" if corrected and contrasts > 1 else ""
    return (
        f"{found.title}: {found.arm_label} {_change(found.method)}, {found.against_label} {_change(found.alternative)};"
        f" {found.arm_label} minus {found.against_label} {_change(found.difference)}{corrected}{family}."
    )


def _change(side: MetricDifference) -> str:
    assert side.difference is not None
    interval = interval_text(side.difference.ci95, side.unit, signed=True)
    return f"{difference_text(side.difference.value, side.unit)} ({interval})"
