"""Step records are means over items, of all and of each stream, independent of the batches."""

import math

import pytest

from sightline.train.log import StepRecord, StepTally

NAN = math.nan


def record(tally: StepTally, **numbers: float) -> StepRecord:
    return tally.record(step=3, grad_norm=1.0, lr=0.1, seconds=0.5, numbers=numbers)


def test_means_by_hand() -> None:
    """Losses 1, 2, 6 of two offline pairs and an online one: 3 in all, 1.5 and 6 by stream; NaN is no number."""
    tally = StepTally()
    tally.add({"loss": [1.0, 2.0], "margin": [0.5, NAN], "clip_share": [NAN, NAN]}, ["offline", "offline"])
    tally.add({"loss": [6.0], "margin": [1.5], "clip_share": [0.25]}, ["online"])
    row = record(tally, ties=0.125)
    assert row.loss == pytest.approx(3.0) and row.margin == pytest.approx(1.0) and row.pairs == 3
    assert row.chosen_reward is None and row.numbers == {"clip_share": 0.25, "ties": 0.125}
    assert row.streams == {
        "offline": {"loss": 1.5, "margin": 0.5, "pairs": 2.0},
        "online": {"loss": 6.0, "margin": 1.5, "clip_share": 0.25, "pairs": 1.0},
    }


def test_without_streams_none_is_told() -> None:
    tally = StepTally()
    tally.add({"loss": [1.0, 2.0]}, ["", ""])
    assert record(tally).streams == {} and record(tally).pairs == 2


def test_tallies_of_two_processes_merge_into_that_of_one() -> None:
    whole, left, right = StepTally(), StepTally(), StepTally()
    for tally in (whole, left):
        tally.add({"loss": [1.0, 2.5], "margin": [NAN, 3.0]}, ["a", "b"])
    for tally in (whole, right):
        tally.add({"loss": [4.0], "margin": [-1.0]}, ["a"])
    left.merge(right)
    assert record(left) == record(whole)
