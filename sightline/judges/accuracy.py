"""How often a judge prefers the chosen answer of a pair: tables 7 and 10 of arXiv 2407.02477, for any judge.

It asks and counts; which pairs and which judge is the caller's choice (`sightline judge`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from sightline.check.shortcuts import Bootstrap, mean_estimate
from sightline.errors import InputError
from sightline.judges.judge import ComparisonInput, Judge, prefer
from sightline.models.requests import JudgeInput, prefix_of
from sightline.records import Estimate, Pair, hash_json

AT_ONCE = 64  # pairs between two words of progress
RESAMPLES = 2000


@dataclass(frozen=True)
class Accuracy:
    """The share of pairs whose chosen answer is preferred, a tie counting half, over those that were scored."""

    share: Estimate
    ties: int


def accuracy_of(
    judge: Judge, pairs: Iterable[Pair], folder: Path, seen: Callable[[int], None], *, seed: int = 0
) -> Accuracy:
    """Ask about all pairs, their images relative to `folder`; `seen` is told how many were just asked about.

    The interval is a bootstrap over clusters of pairs, or over pictures where no cluster is named.

    Raises:
        InputError: no pair was scored.
    """
    right: list[float] = []
    clusters: list[int] = []
    unscored = 0
    source = iter(pairs)
    note = ""
    while batch := list(islice(source, AT_ONCE)):
        for pair, choice in zip(batch, prefer(judge, [_compared(pair, folder) for pair in batch]), strict=True):
            if choice is None:
                unscored += 1
                note = note or pair.id
                continue
            right.append({"first": 1.0, "tie": 0.5, "second": 0.0}[choice])
            clusters.append(int(hash_json([pair.cluster or [*pair.images, pair.id][0]])[:15], 16))
        seen(len(batch))
    if not right:
        raise InputError(
            f"the judge scored none of the pairs in {folder}"
            f"{f' (the first unscored is {note!r})' if note else ''}; give others, or another judge"
        )
    values = np.array(right)
    share = mean_estimate(values, Bootstrap(clusters, RESAMPLES, seed), unscored)
    return Accuracy(share, int((values == 0.5).sum()))


def _compared(pair: Pair, folder: Path) -> ComparisonInput:
    prefix = prefix_of(pair, folder)
    return ComparisonInput(JudgeInput(prefix, pair.chosen, pair.chosen), JudgeInput(prefix, pair.rejected, pair.chosen))
