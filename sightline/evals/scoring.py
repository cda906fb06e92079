"""From answers to scores to estimates, as often as wanted and without the model that answered.

No answer is made here (`run` does that) and no interval is computed here (`statistics` does that). Rows stream: what
is kept of them is their sums.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.answer_stats import ANSWER_METRICS, STRIPPED_METRICS, answer_values, remarks_of, stripped_values
from sightline.evals.benchmark import TOUCHED, AnyMetric, Benchmark, Combining, Grouped
from sightline.evals.cluster_sums import Sums
from sightline.evals.directory import ANSWERS, ESTIMATES, METRICS, REMARKS, SAMPLES, SCORES
from sightline.evals.metrics import needed_values
from sightline.evals.questions import Reasoning, ReasoningTally, find_reasoning
from sightline.evals.statistics import RESAMPLES, estimate_sums
from sightline.records.rows import Answer, Estimate, Sample, Score
from sightline.records.store import read_rows, write_json, write_rows

#: A pair of a sample and its answer, None where it has none.
Answered = tuple[Sample, Answer | None]


def all_metrics(benchmark: Benchmark, reasoning: ReasoningTally | None = None) -> dict[str, AnyMetric]:
    """The benchmark's metrics, then the general ones that it does not define itself."""
    general = ANSWER_METRICS | (STRIPPED_METRICS if reasoning is not None and reasoning.strip else {})
    return {**benchmark.metrics, **{name: metric for name, metric in general.items() if name not in benchmark.metrics}}


def score_answer(benchmark: Benchmark, sample: Sample, answer: Answer) -> Score:
    """The benchmark's score of one answer, with what is measured of every answer."""
    return next(iter(_scored(benchmark, [(sample, answer)], ReasoningTally())))


def as_scored(answered: Iterable[Answered], strip_reasoning: bool) -> Iterator[Answered]:
    """The answers as they are scored and judged: without their reasoning, where it is left out."""
    for sample, answer in answered:
        found = None if answer is None or not strip_reasoning else find_reasoning(answer.text)
        yield sample, answer if answer is None or found is None else _without(answer, found)


def _without(answer: Answer, reasoning: Reasoning) -> Answer:
    return answer.model_copy(update={"text": answer.text[reasoning.start : reasoning.end]})


def _scored(benchmark: Benchmark, answered: Iterable[Answered], reasoning: ReasoningTally) -> Iterator[Score]:
    """The scores in order, with what is measured of every answer; a missing answer has None for every value."""
    missing: dict[str, float | None] = dict.fromkeys(needed_values(all_metrics(benchmark, reasoning)))
    # Where a benchmark makes a figure of its own of this value, reasoning must not change it.
    is_own = TOUCHED in needed_values(benchmark.metrics)
    for sample, answer in answered:
        groups = groups_of(benchmark, sample)
        if answer is None:
            yield Score(sample_id=sample.id, cluster=sample.cluster, groups=groups, values=missing)
            continue
        found = find_reasoning(answer.text)
        reasoning.add(found)
        read = _without(answer, found) if found is not None and reasoning.strip else answer
        score = benchmark.score(sample, read)
        values = {**answer_values(read), **score.values}
        if reasoning.strip:
            values |= stripped_values(found)
        elif found is not None and not is_own:
            values[TOUCHED] = 1.0
        # Of parts that were validated each; to do it again would take a third of the time.
        yield Score.model_construct(
            sample_id=score.sample_id,
            cluster=score.cluster,
            groups=groups,
            values=values,
            details=score.details if read is answer or found is None else _moved(score.details, found.start),
        )


def _moved(details: dict[str, Any], by: int) -> dict[str, Any]:
    """Details whose spans are in the whole answer's text, of which reasoning was left out before the answer."""
    if not details.get("hallucinated"):
        return details
    return {**details, "hallucinated": [[start + by, end + by] for start, end in details["hallucinated"]]}


def groups_of(benchmark: Benchmark, sample: Sample) -> tuple[str, ...]:
    """The parts of the benchmark that a sample counts for."""
    return benchmark.groups(sample) if isinstance(benchmark, Grouped) else ()


def score_all(
    benchmark: Benchmark, answered: Iterable[Answered], reasoning: ReasoningTally | None = None
) -> Iterator[Score]:
    """The scores in the order of the samples; one without an answer has None for every value.

    `reasoning` says whether reasoning in answers is left out, and counts it.
    """
    scores = _scored(benchmark, answered, reasoning or ReasoningTally())
    return benchmark.combine(scores) if isinstance(benchmark, Combining) else scores


def estimate_scores(
    benchmark: Benchmark,
    scores: Iterable[Score],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    reasoning: ReasoningTally | None = None,
) -> dict[str, Estimate]:
    """Every metric of a benchmark over scores of different samples, which are forgotten once added up."""
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
    write_json(folder / REMARKS, list(remarks_of(benchmark, estimates, reasoning)))
    # Last: a benchmark that has estimates is complete.
    write_json(folder / ESTIMATES, {name: estimate.model_dump(mode="json") for name, estimate in estimates.items()})
    return estimates


def score_directory(
    benchmark: Benchmark,
    directory: Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    strip_reasoning: bool = False,
) -> dict[str, Estimate]:
    """Score the answers in `directory / benchmark.name` and write what `write_scores` does beside them.

    Raises:
        InputError: a sample without an answer, or an answer without a sample.
    """
    folder = directory / benchmark.name
    reasoning = ReasoningTally(strip_reasoning)
    return write_scores(benchmark, _answered(folder), folder, resamples=resamples, seed=seed, reasoning=reasoning)


def _answered(folder: Path) -> Iterator[tuple[Sample, Answer]]:
    """Samples and answers side by side; `eval` writes both in one order, and what is out of it waits."""
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
        if answer is not None:
            yield sample, answer
    stranger = next(iter(waiting.values()), None) or next(answers, None)
    if stranger is not None:
        raise InputError(f"{folder / ANSWERS}: sample {stranger.sample_id!r} is not in {SAMPLES}; evaluate again.")
    if missing:
        raise InputError(f"{folder}: {missing} samples have no answer; run `sightline eval` again.")
