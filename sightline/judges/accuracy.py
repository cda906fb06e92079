"""Accuracy of any judge: how often it prefers the chosen answer of a pair (tables 7 and 10 of arXiv 2407.02477).

The caller picks the pairs and the judge (`sightline judge`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from sightline.check.shortcuts import Bootstrap, mean_estimate
from sightline.errors import InputError
from sightline.judges.judge import ComparisonInput, Judge, prefer
from sightline.models.requests import JudgeInput, make_prefix
from sightline.records import Estimate, Pair, hash_json

BATCH = 64  # pairs between two updates of the progress bar
RESAMPLES = 2000


@dataclass(frozen=True)
class Accuracy:
    """Share of scored pairs whose chosen answer is preferred; a tie counts one half."""

    share: Estimate
    ties: int


def measure_accuracy(
    judge: Judge, pairs: Iterable[Pair], folder: Path, progress: Callable[[int], None], *, seed: int = 0
) -> Accuracy:
    """Judge all pairs, whose image paths are relative to `folder`; `progress` gets the size of each finished batch.

    The interval is a bootstrap over the pairs' clusters, or over images where a pair names no cluster.

    Raises:
        InputError: no pair was scored.
    """
    points: list[float] = []
    clusters: list[int] = []
    unscored = 0
    source = iter(pairs)
    first_unscored = ""
    while batch := list(islice(source, BATCH)):
        for pair, choice in zip(batch, prefer(judge, [_comparison(pair, folder) for pair in batch]), strict=True):
            if choice is None:
                unscored += 1
                first_unscored = first_unscored or pair.id
                continue
            points.append({"first": 1.0, "tie": 0.5, "second": 0.0}[choice])
            clusters.append(int(hash_json([pair.cluster or [*pair.images, pair.id][0]])[:15], 16))
        progress(len(batch))
    if not points:
        raise InputError(
            f"the judge scored none of the pairs in {folder}"
            f"{f' (first unscored: {first_unscored!r})' if first_unscored else ''}; use other pairs or another judge"
        )
    values = np.array(points)
    share = mean_estimate(values, Bootstrap(clusters, RESAMPLES, seed), unscored)
    return Accuracy(share, int((values == 0.5).sum()))


def _comparison(pair: Pair, folder: Path) -> ComparisonInput:
    prefix = make_prefix(pair, folder)
    return ComparisonInput(JudgeInput(prefix, pair.chosen, pair.chosen), JudgeInput(prefix, pair.rejected, pair.chosen))
