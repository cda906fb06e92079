"""Accuracy of any judge: how often it prefers the chosen answer of a pair (tables 7 and 10 of arXiv 2407.02477).

The caller picks the pairs and the judge (`sightline judge`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.check.shortcuts import Bootstrap, mean_estimate
from sightline.errors import InputError
from sightline.judges.judge import ComparisonInput, Judge, Preference, prefer
from sightline.models.processes import Processes
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
    judge: Judge,
    pairs: Sequence[Pair],
    folder: Path,
    progress: Callable[[int], None],
    *,
    seed: int = 0,
    processes: Processes = Processes(),  # noqa: B008 - frozen
) -> Accuracy:
    """Judge all pairs, whose image paths are relative to `folder`; `progress` gets the size of each finished batch.

    Collective: each process judges its share, and all return the result of one process. The interval is a bootstrap
    over the pairs' clusters, or over images where a pair names no cluster.

    Raises:
        InputError: no pair was scored.
    """
    choices = processes.join(processes.on_all(lambda: _choices(judge, processes.share(pairs), folder, progress)))
    return processes.on_all(lambda: _accuracy(pairs, choices, folder, seed))


def _accuracy(pairs: Sequence[Pair], choices: Sequence[Preference | None], folder: Path, seed: int) -> Accuracy:
    scored = [(pair, choice) for pair, choice in zip(pairs, choices, strict=True) if choice is not None]
    if not scored:
        raise InputError(
            f"the judge scored none of the pairs in {folder}"
            f"{f' (first unscored: {pairs[0].id!r})' if pairs else ''}; use other pairs or another judge"
        )
    values = np.array([{"first": 1.0, "tie": 0.5, "second": 0.0}[choice] for _, choice in scored])
    clusters = [int(hash_json([pair.cluster or [*pair.images, pair.id][0]])[:15], 16) for pair, _ in scored]
    share = mean_estimate(values, Bootstrap(clusters, RESAMPLES, seed), len(pairs) - len(scored))
    return Accuracy(share, int((values == 0.5).sum()))


def _choices(
    judge: Judge, pairs: Sequence[Pair], folder: Path, progress: Callable[[int], None]
) -> list[Preference | None]:
    """The judge's preference between the chosen answer, which is first, and the rejected one of each pair."""
    found: list[Preference | None] = []
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start : start + BATCH]
        found += prefer(judge, [_comparison(pair, folder) for pair in batch])
        progress(len(batch))
    return found


def _comparison(pair: Pair, folder: Path) -> ComparisonInput:
    prefix = make_prefix(pair, folder)
    return ComparisonInput(JudgeInput(prefix, pair.chosen, pair.chosen), JudgeInput(prefix, pair.rejected, pair.chosen))
