"""From answers to scores to estimates, as often as wanted and without the model that answered.

No answer is made here (`run` does that) and no interval is computed here (`statistics` does that). Rows stream: what
is kept of them is their sums.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.benchmark import AnyMetric, Benchmark, Combining, Grouped
from sightline.evals.directory import ANSWERS, ESTIMATES, METRICS, REMARKS, SAMPLES, SCORES
from sightline.evals.guard import ANSWER_METRICS, answer_values
from sightline.evals.metrics import needed_values
from sightline.evals.remarks import remarks_of
from sightline.evals.statistics import RESAMPLES, estimate_sums
from sightline.evals.sums import Sums
from sightline.records.rows import Answer, Estimate, Sample, Score
from sightline.records.store import read_rows, write_json, write_rows


def all_metrics(benchmark: Benchmark) -> dict[str, AnyMetric]:
    """The benchmark's metrics, then the general ones that it does not define itself."""
    general = {name: metric for name, metric in ANSWER_METRICS.items() if name not in benchmark.metrics}
    return {**benchmark.metrics, **general}


def score_answer(benchmark: Benchmark, sample: Sample, answer: Answer) -> Score:
    """The benchmark's score of one answer, with what is measured of every answer."""
    return _completed(benchmark.score(sample, answer), answer, groups_of(benchmark, sample))


def _completed(score: Score, answer: Answer, groups: tuple[str, ...]) -> Score:
    # Of parts that were validated each; to do it again would take a third of the time.
    return Score.model_construct(
        sample_id=score.sample_id,
        cluster=score.cluster,
        groups=groups,
        values={**answer_values(answer), **score.values},
        details=score.details,
    )


def groups_of(benchmark: Benchmark, sample: Sample) -> tuple[str, ...]:
    """The parts of the benchmark that a sample counts for."""
    return benchmark.groups(sample) if isinstance(benchmark, Grouped) else ()


def score_all(benchmark: Benchmark, answered: Iterable[tuple[Sample, Answer | None]]) -> Iterator[Score]:
    """The scores in the order of the samples; one without an answer has None for every value."""
    missing: dict[str, float | None] = dict.fromkeys(needed_values(all_metrics(benchmark)))
    groups = benchmark.groups if isinstance(benchmark, Grouped) else lambda _: ()
    scores = (
        _completed(benchmark.score(sample, answer), answer, groups(sample))
        if answer is not None
        else Score(sample_id=sample.id, cluster=sample.cluster, groups=groups(sample), values=missing)
        for sample, answer in answered
    )
    return benchmark.combine(scores) if isinstance(benchmark, Combining) else scores


def estimate_scores(
    benchmark: Benchmark, scores: Iterable[Score], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Every metric of a benchmark over scores of different samples, which are forgotten once added up."""
    sums = Sums(all_metrics(benchmark))
    for score in scores:
        sums.add([score])
    return estimate_sums(sums.table(), sums.formulas, resamples=resamples, seed=seed)


def write_scores(
    benchmark: Benchmark,
    answered: Iterable[tuple[Sample, Answer | None]],
    folder: Path,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Score the answers and write scores, metrics, remarks and estimates to `folder`, in one pass."""
    sums = Sums(all_metrics(benchmark))

    def added() -> Iterator[Score]:
        for score in score_all(benchmark, answered):
            sums.add([score])
            yield score

    write_rows(folder / SCORES, added())
    estimates = estimate_sums(sums.table(), sums.formulas, resamples=resamples, seed=seed)
    write_json(
        folder / METRICS, {name: metric.model_dump(mode="json") for name, metric in sums.formulas.metrics.items()}
    )
    write_json(folder / REMARKS, list(remarks_of(benchmark, estimates)))
    # Last: a benchmark that has estimates is complete.
    write_json(folder / ESTIMATES, {name: made.model_dump(mode="json") for name, made in estimates.items()})
    return estimates


def score_directory(
    benchmark: Benchmark, directory: Path, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Score the answers in `directory / benchmark.name` and write what `write_scores` does beside them.

    Raises:
        InputError: a sample without an answer, or an answer without a sample.
    """
    folder = directory / benchmark.name
    return write_scores(benchmark, _answered(folder), folder, resamples=resamples, seed=seed)


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
