"""Sentences on a study's outcome, for HTML and Markdown alike. No number is computed here."""

from collections.abc import Sequence

from sightline.report.formatting import difference_text, interval_text, value_text
from sightline.study.config import BASE
from sightline.study.report.tradeoff import Tradeoff
from sightline.study.results import ArmFinding, Outcome

HOLM = 0.05  # familywise error rate of the stars


def starred(found: ArmFinding) -> bool:
    """Whether a difference survives Holm's correction over all differences of the study."""
    return found.p_holm is not None and found.p_holm < HOLM


def primary_metrics(findings: Sequence[ArmFinding]) -> list[tuple[str, str]]:
    """(benchmark, metric) of the primary metrics; if there are none, the first metric of each benchmark."""
    named = list(dict.fromkeys((f.benchmark, f.metric) for f in findings if f.primary))
    first = {f.benchmark: (f.benchmark, f.metric) for f in reversed(findings)}
    return named or list(first.values())[::-1]


def is_base(arm: str) -> bool:
    """Whether an arm is an untrained model."""
    return arm == BASE or arm.endswith(f"/{BASE}")


def name(arm: str) -> str:
    """An arm's name in sentences."""
    if not is_base(arm):
        return arm
    model = arm.removesuffix(BASE).removesuffix("/")
    return f"the untrained {model}" if model else "the untrained model"


def verdict_sentences(outcome: Outcome) -> list[str]:
    """For each primary metric: which arms are better, worse or within noise, and by how much."""
    return [_verdict(outcome, *key) for key in primary_metrics(outcome.findings)]


def front_sentence(plot: Tradeoff) -> str:
    """The arms on the front."""
    arms = listed([name(arm) for arm in plot.front])
    return (
        f"On the front, where no other arm is as good in both and better in one: {arms} ({len(plot.front)} of"
        f" {len(plot.points)}); by point estimates, so intervals that overlap leave it open."
    )


def design_sentence(outcome: Outcome) -> str:
    """The design of the study: arms, seeds, images and answers."""
    arms = [arm for arm in dict.fromkeys(f.arm for f in outcome.findings) if not is_base(arm)]
    seeds = "one seed" if len(outcome.seeds) == 1 else f"{len(outcome.seeds)} seeds"
    counts: dict[str, tuple[int, int]] = {}  # the largest over the metrics: some count only one group's answers
    for f in outcome.findings:
        images, answers = counts.get(f.benchmark, (0, 0))
        counts[f.benchmark] = max(images, f.images), max(answers, f.value.n)
    measured = "; ".join(
        f"{bench} ({answers:,} answers on {images:,} images)" for bench, (images, answers) in counts.items()
    )
    return (
        f"{len(arms)} {'arm' if len(arms) == 1 else 'arms'} with {seeds} each, against {name(outcome.baseline)}. "
        f"Measured on {measured}."
    )


def _verdict(outcome: Outcome, benchmark: str, metric: str) -> str:
    rows = [f for f in outcome.findings if (f.benchmark, f.metric) == (benchmark, metric)]
    by_word = {word: [f for f in rows if f.verdict == word] for word in ("better", "worse", "higher", "lower")}
    parts = [f"{word}: {listed([_change(f) for f in found])}" for word, found in by_word.items() if found]
    noise = [f.arm for f in rows if f.verdict == "within noise"]
    if noise:
        parts.append(f"within noise: {listed([name(arm) for arm in noise])}")
    unknown = [f.arm for f in rows if f.verdict == "not estimable"]
    if unknown:
        parts.append(f"not estimable: {listed([name(arm) for arm in unknown])}")
    against = [f for f in rows if f.difference is None]
    at = "".join(f", {value_text(f.value.value, f.unit)} for {name(f.arm)}" for f in against)
    return f"{rows[0].label} ({benchmark}{at}): {'; '.join(parts) or 'nothing to compare'}."


def _change(found: ArmFinding) -> str:
    assert found.difference is not None
    points = " points" if found.unit == "share" else ""
    change = difference_text(found.difference.value, found.unit)
    interval = interval_text(found.difference.ci95, found.unit, signed=True)
    return f"{name(found.arm)} {change}{points} ({interval}{'; also after Holm' if starred(found) else ''})"


def listed(items: Sequence[str]) -> str:
    """Items as words of a sentence: `a, b and c`."""
    return f"{', '.join(items[:-1])} and {items[-1]}" if len(items) > 1 else "".join(items)
