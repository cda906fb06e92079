"""Scoring: answers to scores to estimates, repeatable without the model.

Answers are generated in `run`, intervals computed in `statistics`. Rows are streamed: only their sums are kept.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.answer_stats import (
    ANSWER_METRICS,
    REASONING_METRICS,
    answer_values,
    collect_caveats,
    reasoning_values,
)
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, Benchmark, CombinesScores, HasGroups
from sightline.evals.cluster_sums import Sums
from sightline.evals.directory import ANSWERS, ESTIMATES, METRICS, REMARKS, SAMPLES, SCORES
from sightline.evals.metrics import required_values
from sightline.evals.questions import Reasoning, ReasoningTally, find_reasoning
from sightline.evals.statistics import RESAMPLES, estimate_sums
from sightline.records.rows import Answer, Estimate, Sample, Score
from sightline.records.store import read_rows, write_json, write_rows

#: A sample and its answer, None where it has none.
Answered = tuple[Sample, Answer | None]


def all_metrics(benchmark: Benchmark, reasoning: ReasoningTally | None = None) -> dict[str, AnyMetric]:
    """The benchmark's metrics, then the general ones that it does not define itself."""
    general = ANSWER_METRICS | (REASONING_METRICS if reasoning is not None and reasoning.strip else {})
    return {**benchmark.metrics, **{name: metric for name, metric in general.items() if name not in benchmark.metrics}}


def score_answer(benchmark: Benchmark, sample: Sample, answer: Answer) -> Score:
    """The benchmark's score of one answer, with the values that are measured of every answer."""
    return next(iter(_score_rows(benchmark, [(sample, answer)], ReasoningTally())))


def answers_as_scored(answered: Iterable[Answered], strip_reasoning: bool) -> Iterator[Answered]:
    """The answers as they are scored and judged: without reasoning if `strip_reasoning` is set."""
    for sample, answer in answered:
        found = None if answer is None or not strip_reasoning else find_reasoning(answer.text)
        yield sample, answer if answer is None or found is None else _strip_reasoning(answer, found)


def _strip_reasoning(answer: Answer, reasoning: Reasoning) -> Answer:
    return answer.model_copy(update={"text": answer.text[reasoning.start : reasoning.end]})


def _score_rows(benchmark: Benchmark, answered: Iterable[Answered], reasoning: ReasoningTally) -> Iterator[Score]:
    """The scores in order, with the values measured of every answer; a missing answer has None for every value."""
    missing: dict[str, float | None] = dict.fromkeys(required_values(all_metrics(benchmark, reasoning)))
    # If the benchmark has its own metric of this value, reasoning must not change it.
    is_own = DECIDED_BY_QUIRK in required_values(benchmark.metrics)
    for sample, answer in answered:
        groups = sample_groups(benchmark, sample)
        if answer is None:
            yield Score(sample_id=sample.id, cluster=sample.cluster, groups=groups, values=missing)
            continue
        found = find_reasoning(answer.text)
        reasoning.add(found)
        read = _strip_reasoning(answer, found) if found is not None and reasoning.strip else answer
        score = benchmark.score(sample, read)
        values = {**answer_values(read), **score.values}
        if reasoning.strip:
            values |= reasoning_values(found)
        elif found is not None and not is_own:
            values[DECIDED_BY_QUIRK] = 1.0
        # The parts are validated already; validating them again would take a third of the time.
        yield Score.model_construct(
            sample_id=score.sample_id,
            cluster=score.cluster,
            groups=groups,
            values=values,
            details=score.details if read is answer or found is None else _shift_spans(score.details, found.start),
        )


def _shift_spans(details: dict[str, Any], by: int) -> dict[str, Any]:
    """Details with spans shifted to the whole text, from which reasoning was stripped before the answer."""
    if not details.get("hallucinated"):
        return details
    return {**details, "hallucinated": [[start + by, end + by] for start, end in details["hallucinated"]]}


def sample_groups(benchmark: Benchmark, sample: Sample) -> tuple[str, ...]:
    """The parts of the benchmark that a sample belongs to."""
    return benchmark.groups(sample) if isinstance(benchmark, HasGroups) else ()


def score_all(
    benchmark: Benchmark, answered: Iterable[Answered], reasoning: ReasoningTally | None = None
) -> Iterator[Score]:
    """The scores in the order of the samples; one without an answer has None for every value.

    `reasoning` says whether to strip reasoning, and counts it.
    """
    scores = _score_rows(benchmark, answered, reasoning or ReasoningTally())
    return benchmark.combine(scores) if isinstance(benchmark, CombinesScores) else scores


def estimate_scores(
    benchmark: Benchmark,
    scores: Iterable[Score],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    reasoning: ReasoningTally | None = None,
) -> dict[str, Estimate]:
    """Every metric of a benchmark over scores of different samples, which are discarded once added up."""
    sums = Sums(all_metrics(benchmark, reasoning))
    for score in scores:
        sums.add([score])
    return estimate_sums(sums.table(), sums.formulas, resamples=resamples, seed=seed)


def write_scores(
    benchmark: Benchmark,
    answered: Iterable[Answered],
    folder: Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    reasoning: ReasoningTally | None = None,
) -> dict[str, Estimate]:
    """Score the answers and write scores, metrics, remarks and estimates to `folder`, in one pass."""
    reasoning = reasoning or ReasoningTally()
    sums = Sums(all_metrics(benchmark, reasoning))

    def added() -> Iterator[Score]:
        for score in score_all(benchmark, answered, reasoning):
            sums.add([score])
            yield score

    write_rows(folder / SCORES, added())
    estimates = estimate_sums(sums.table(), sums.formulas, resamples=resamples, seed=seed)
    write_json(
        folder / METRICS, {name: metric.model_dump(mode="json") for name, metric in sums.formulas.metrics.items()}
    )
    write_json(folder / REMARKS, list(collect_caveats(benchmark, estimates, reasoning)))
    # Written last: a benchmark with estimates is complete.
    write_json(folder / ESTIMATES, {name: estimate.model_dump(mode="json") for name, estimate in estimates.items()})
    return estimates


def score_directory(
    benchmark: Benchmark,
    directory: Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    strip_reasoning: bool = False,
    allow_missing: bool = False,
) -> dict[str, Estimate]:
    """Score the answers in `directory / benchmark.name` and write the files of `write_scores` beside them.

    With `allow_missing`, samples without an answer are unscored.

    Raises:
        InputError: a sample has no answer, or an answer has no sample.
    """
    folder = directory / benchmark.name
    reasoning = ReasoningTally(strip_reasoning)
    answered = _read_answered(folder, allow_missing)
    return write_scores(benchmark, answered, folder, resamples=resamples, seed=seed, reasoning=reasoning)


def _read_answered(folder: Path, allow_missing: bool) -> Iterator[Answered]:
    """Samples with their answers; `eval` writes both in one order, and rows out of order are buffered."""
    answers = read_rows(folder / ANSWERS, Answer)
    waiting: dict[str, Answer] = {}
    missing = 0
    for sample in read_rows(folder / SAMPLES, Sample):
        answer = waiting.pop(sample.id, None)
        while answer is None and (read := next(answers, None)) is not None:
            if read.sample_id == sample.id:
                answer = read
            else:
                waiting[read.sample_id] = read
        missing += answer is None
        if answer is not None or allow_missing:
            yield sample, answer
    stranger = next(iter(waiting.values()), None) or next(answers, None)
    if stranger is not None:
        raise InputError(f"{folder / ANSWERS}: sample {stranger.sample_id!r} is not in {SAMPLES}; evaluate again.")
    if missing and not allow_missing:
        raise InputError(f"{folder}: {missing} samples have no answer; run `sightline eval` again.")
