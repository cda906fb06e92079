"""From answers to scores to estimates, as often as wanted and without the model that answered.

No answer is made here (`run` does that) and no interval is computed here (`statistics` does that).
"""

from collections.abc import Mapping
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.benchmark import Benchmark, Metric, mean
from sightline.evals.directory import ANSWERS, ESTIMATES, METRICS, SAMPLES, SCORES
from sightline.evals.statistics import RESAMPLES, estimate
from sightline.records.rows import Answer, Estimate, Sample, Score
from sightline.records.store import read_rows, write_json, write_rows

#: Measured for every benchmark that does not measure them itself: alignment that only shortens answers must show.
ANSWER_METRICS: dict[str, Metric] = {
    "tokens": mean("answer_tokens", "Answer length in tokens", higher_is_better=None, unit="number"),
    "unfinished": mean("answer_unfinished", "Answers cut off by the token limit", higher_is_better=False),
}


def all_metrics(benchmark: Benchmark) -> dict[str, Metric]:
    """The benchmark's metrics, then the general ones that it does not define itself."""
    general = {name: metric for name, metric in ANSWER_METRICS.items() if name not in benchmark.metrics}
    return {**benchmark.metrics, **general}


def score_answer(benchmark: Benchmark, sample: Sample, answer: Answer) -> Score:
    """The benchmark's score of one answer, with the answer's length and whether it was cut off."""
    score = benchmark.score(sample, answer)
    general: Mapping[str, float] = {
        "answer_tokens": float(answer.tokens),
        "answer_unfinished": float(not answer.finished),
    }
    return score.model_copy(update={"values": {**general, **score.values}})


def score_directory(
    benchmark: Benchmark, directory: Path, *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Estimate]:
    """Score the answers in `directory / benchmark.name` and write scores, metrics and estimates beside them.

    Raises:
        InputError: a sample without an answer, or an answer without a sample.
    """
    folder = directory / benchmark.name
    samples = {sample.id: sample for sample in read_rows(folder / SAMPLES, Sample)}
    scores = []
    for answer in read_rows(folder / ANSWERS, Answer):
        if answer.sample_id not in samples:
            raise InputError(f"{folder / ANSWERS}: sample {answer.sample_id!r} is not in {SAMPLES}; evaluate again.")
        scores.append(score_answer(benchmark, samples[answer.sample_id], answer))
    if len(scores) < len(samples):
        raise InputError(f"{folder}: {len(samples) - len(scores)} samples have no answer; run `sightline eval` again.")
    metrics = all_metrics(benchmark)
    estimates = estimate(scores, metrics, resamples=resamples, seed=seed)
    write_rows(folder / SCORES, scores)
    write_json(folder / METRICS, {name: metric.model_dump(mode="json") for name, metric in metrics.items()})
    # Last: a benchmark that has estimates is complete.
    write_json(folder / ESTIMATES, {name: made.model_dump(mode="json") for name, made in estimates.items()})
    return estimates
