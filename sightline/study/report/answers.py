"""Answers of the untrained model next to those of every arm, for samples of each benchmark.

An answer is better or worse by its benchmark's primary metric on that answer alone. `_shown` selects the samples by the
rule in `RULE`, which the page prints.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from sightline.evals.directory import BenchmarkResult
from sightline.evals.metrics import Metric
from sightline.records.rows import Score
from sightline.report.gallery import Segment, evenly, hallucinated_spans, mark_spans

BENCHMARKS = 3
CARDS = 12  # of each benchmark
_EACH = 3  # samples of each arm and change that are looked at first
_LONGEST = 1500  # characters of an answer

RULE = (
    f"For each arm, the samples whose answer became better, and those whose answer became worse, are taken at even "
    f"distances, arms by turns, until there are {CARDS} of a benchmark; benchmarks that mark words come first. Answers "
    f"are those of the first seed. Better and worse is by the benchmark's primary metric on this one answer."
)

Change = Literal["better", "worse", "same"]
Picture = Callable[[Path], str | None]


class ArmAnswer(NamedTuple):
    """One arm's answer to a sample; `place` is the arm's number among those shown."""

    arm: str
    place: int
    change: Change
    text: list[Segment]


class Card(NamedTuple):
    """One sample: pictures, prompt, reference where there is one, the base's answer, and every arm's."""

    id: str
    pictures: list[str | None]
    prompt: str
    reference: str
    before: list[Segment]
    answers: list[ArmAnswer]


class Board(NamedTuple):
    """The cards of one benchmark; `counts` has, for each arm, the numbers of better, worse and all answers."""

    benchmark: str
    label: str
    marks: bool
    counts: list[tuple[str, int, int, int]]
    cards: list[Card]


def boards(
    base: Mapping[str, BenchmarkResult],
    arms: Mapping[str, Mapping[str, BenchmarkResult]],
    places: Mapping[str, int],
    most: int,
    picture: Picture,
) -> list[Board]:
    """A board for each of the first `most` benchmarks whose primary metric is defined for a single answer.

    `arms` has the evaluation of each arm's first seed, `places` the number of each; `picture` embeds an image.
    """
    able = [(name, metric) for name, result in base.items() if (metric := _primary(result)) is not None]
    able.sort(key=lambda found: not _marks(base[found[0]]))  # stable
    return [
        _board(base[name], metric, {arm: found[name] for arm, found in arms.items() if name in found}, places, picture)
        for name, metric in able[:most]
    ]


def changes(before: BenchmarkResult, after: BenchmarkResult, metric: Metric) -> dict[str, Change]:
    """The change of each sample that both models answered and that was scored: better, worse or the same."""
    values = {score.sample_id: _value(score, metric) for score in after.scores}
    found: dict[str, Change] = {}
    for score in before.scores:
        one, other = _value(score, metric), values.get(score.sample_id)
        if one is None or other is None:
            continue
        found[score.sample_id] = (
            "same" if one == other else "better" if (other > one) == metric.higher_is_better else "worse"
        )
    return found


def _primary(result: BenchmarkResult) -> Metric | None:
    for metric in result.metrics.values():
        if isinstance(metric, Metric) and metric.primary and metric.higher_is_better is not None and not metric.total:
            return metric
    return None


def _value(score: Score, metric: Metric) -> float | None:
    if metric.group and metric.group not in score.groups:
        return None
    terms = metric.terms(score.values, f"score of {score.sample_id!r}")
    return None if terms is None or terms[1] == 0 else terms[0] / terms[1]


def _marks(result: BenchmarkResult) -> bool:
    return any(hallucinated_spans(score.details) is not None for score in result.scores)


def _board(
    base: BenchmarkResult,
    metric: Metric,
    arms: Mapping[str, BenchmarkResult],
    places: Mapping[str, int],
    picture: Picture,
) -> Board:
    changed = {arm: changes(base, result, metric) for arm, result in arms.items()}
    marked = {arm: _marked(result) for arm, result in arms.items()}
    before = _marked(base)
    cards = []
    samples = {sample.id: sample for sample in base.samples}
    for sample_id in _shown(changed, list(samples)):
        sample = samples[sample_id]
        answers = [
            ArmAnswer(arm, places[arm], changed[arm][sample_id], marked[arm][sample_id])
            for arm in arms
            if sample_id in changed[arm] and sample_id in marked[arm]
        ]
        pictures = [picture(base.folder / image) for image in sample.images]
        cards.append(Card(sample_id, pictures, sample.prompt, sample.reference or "", before[sample_id], answers))
    counts = [(arm, _count(found, "better"), _count(found, "worse"), len(found)) for arm, found in changed.items()]
    return Board(base.name, metric.label, _marks(base), counts, cards)


def _count(found: Mapping[str, Change], word: Change) -> int:
    return sum(change == word for change in found.values())


def _shown(changed: Mapping[str, Mapping[str, Change]], order: Sequence[str]) -> list[str]:
    """At most `CARDS` samples, in their order: by turns of the arms and of better and worse; then any others."""
    piles = [
        evenly([sample for sample in order if found.get(sample) == word], _EACH)
        for found in changed.values()
        for word in ("better", "worse")
    ]
    turns = [pile[turn] for turn in range(_EACH) for pile in piles if turn < len(pile)]
    answered = [sample for sample in order if any(sample in found for found in changed.values())]
    chosen = set(list(dict.fromkeys((*turns, *evenly(answered, CARDS))))[:CARDS])
    return [sample for sample in order if sample in chosen]


def _marked(result: BenchmarkResult) -> dict[str, list[Segment]]:
    spans = {score.sample_id: hallucinated_spans(score.details) or [] for score in result.scores}
    return {
        answer.sample_id: mark_spans(_cut(answer.text), spans.get(answer.sample_id, [])) for answer in result.answers
    }


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"
