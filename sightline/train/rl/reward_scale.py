"""What rewards are measured by: mean and deviation of a judge's scores, taken once before training and then fixed.

arXiv 2407.02477, app. A, takes them on the alignment set. Rewards of the steps themselves move nothing here.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import SAMPLES, read_samples, samples_file
from sightline.errors import InputError
from sightline.models.prompts import prefix_of
from sightline.pairs.judges.base import Judge, Judged, judged
from sightline.records.rows import Row

FILE = "reward_scale.json"


class RewardScale(Row):
    """Mean and deviation of `n` scores; `unscored` answers were left out."""

    mean: float
    std: float
    n: int = 0
    unscored: int = 0

    def __call__(self, score: float) -> float:
        """The score in deviations from the mean."""
        return (score - self.mean) / self.std


def measure(judge: Judge, asked: Sequence[Judged]) -> RewardScale:
    """The scale by which these answers have mean 0 and deviation 1.

    Raises:
        InputError: fewer than two are scored, or all scores are the same.
    """
    verdicts = judge.score(asked)
    scores = [verdict.score for verdict in verdicts if verdict.score is not None]
    std = statistics.pstdev(scores) if len(scores) > 1 else 0.0
    if not std > 0:
        why = next((verdict.note for verdict in verdicts if verdict.score is None and verdict.note), "")
        raise InputError(
            f"rl.scale: the judge scored {len(scores)} of {len(asked)} answers{f' ({why})' if why else ''}, and not "
            "with two different scores, so that rewards have no scale; give rl.scale.by another value or more rows"
        )
    return RewardScale(mean=statistics.fmean(scores), std=std, n=len(scores), unscored=len(asked) - len(scores))


def answers_in(place: Path) -> Iterator[Judged]:
    """The answers that the data have: chosen and rejected ones of pairs, or else references."""
    if place.is_dir() and not (place / SAMPLES).exists():
        for pair in read_pairs(place):
            prefix, known = prefix_of(pair, place.absolute()), pair.provenance.get("truth")
            truth = known if isinstance(known, dict) else {}
            yield from (Judged(prefix, answer, pair.chosen, truth) for answer in (pair.chosen, pair.rejected))
        return
    folder = samples_file(place).parent.absolute()
    for sample in read_samples(place):
        if sample.reference:
            yield judged(sample, folder, sample.reference)
