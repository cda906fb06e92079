"""The offline source: every pair once per epoch, in a seeded order, from any position."""

import random
from collections import Counter
from collections.abc import Callable
from itertools import chain

import numpy as np
import pytest
import torch

from sightline.records.rows import Pair
from sightline.train.sources import OfflineSource, Source

PAIRS = [Pair(id=str(i), prompt="?", chosen="a", rejected="b", builder="by hand") for i in range(7)]


def ids(source: Source[Pair]) -> list[list[str]]:
    return [[pair.id for pair in step] for step in source]


def make(
    seed: int = 0, pairs_per_step: int = 3, epochs: int | None = 2, max_steps: int | None = None
) -> OfflineSource[Pair]:
    return OfflineSource(PAIRS, pairs_per_step=pairs_per_step, seed=seed, epochs=epochs, max_steps=max_steps)


def test_an_epoch_has_every_pair_once_and_its_last_step_takes_what_is_left() -> None:
    steps = ids(make())
    assert [len(step) for step in steps] == [3, 3, 1, 3, 3, 1]
    for epoch in (steps[:3], steps[3:]):
        assert sorted(chain(*epoch)) == ["0", "1", "2", "3", "4", "5", "6"]
    assert steps[:3] != steps[3:], "each epoch has its own order"
    assert make().steps == 6


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    assert ids(make(seed=5)) == ids(make(seed=5))
    assert ids(make(seed=5)) != ids(make(seed=6))
    expected = [str(i) for epoch in (0, 1) for i in np.random.default_rng([5, epoch]).permutation(7)]
    assert list(chain(*ids(make(seed=5)))) == expected


def test_max_steps_cuts_or_goes_through_more_epochs() -> None:
    assert ids(make(epochs=None, max_steps=2)) == ids(make())[:2]
    steps = ids(make(epochs=None, max_steps=7))
    assert steps[:6] == ids(make()) and len(steps) == 7
    assert Counter(chain(*steps)).most_common(1)[0][1] == 3


@pytest.mark.parametrize("drawn", range(7))
def test_a_restored_source_goes_on_where_the_other_stood(drawn: int) -> None:
    source, other = make(), make()
    for _ in range(drawn):
        next(source)
    other.restore(source.state())
    assert ids(other) == ids(make())[drawn:]


def test_it_repeats_only_beyond_one_epoch() -> None:
    assert not make(epochs=1).repeats and make(epochs=2).repeats
    assert not make(epochs=None, max_steps=3).repeats and make(epochs=None, max_steps=4).repeats


def test_no_global_random_state_is_read_or_moved() -> None:
    states: list[Callable[[], object]] = [
        random.getstate,
        lambda: np.random.get_state()[1].tolist(),  # type: ignore[index]  # noqa: NPY002
        lambda: torch.get_rng_state().tolist(),
    ]
    before = [state() for state in states]
    first = ids(make())
    assert [state() for state in states] == before
    torch.manual_seed(123)
    random.seed(123)
    assert ids(make()) == first


def test_a_state_of_another_size_and_an_ambiguous_length_are_refused() -> None:
    with pytest.raises(ValueError, match="taken over 9 pairs, this source has 7"):
        make().restore({"drawn": 1, "pairs": 9})
    for epochs, max_steps in ((None, None), (1, 1)):
        with pytest.raises(ValueError, match="either epochs or max_steps"):
            make(epochs=epochs, max_steps=max_steps)
