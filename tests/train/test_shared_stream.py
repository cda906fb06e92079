"""A shared stream gives every process all results; the processes here are threads that wait for each other."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.models.processes import Processes
from sightline.train.streams import SharedStream


class Together(Processes):
    """One of several processes in one: what each says is heard by all."""

    slots: list[Any]
    barrier: Barrier

    def gather(self, value: Any) -> list[Any]:
        self.barrier.wait(10)
        self.slots[self.rank] = value
        self.barrier.wait(10)
        return list(self.slots)


def team(count: int) -> list[Together]:
    slots, barrier = [None] * count, Barrier(count)
    team_members = [Together(rank, count) for rank in range(count)]
    for each in team_members:
        object.__setattr__(each, "slots", slots)
        object.__setattr__(each, "barrier", barrier)
    return team_members


class Squares:
    """Makes a square a number, unless it is told to make one of 13; records its examples."""

    name = "squares"

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.steps: list[int] = []

    def refresh(self, step: int) -> None:
        self.steps.append(step)

    def make(self, examples: Sequence[int], epoch: int, /) -> list[int]:
        if 13 in examples:
            raise InputError("no 13")
        self.seen += examples
        return [number**2 + epoch for number in examples]

    def close(self) -> None:
        """Nothing to do."""


def run(count: int, examples: list[int]) -> tuple[list[Any], list[Squares]]:
    streams = [Squares() for _ in range(count)]

    def one(place: int, processes: Together) -> Any:
        shared = SharedStream(streams[place], processes)
        shared.refresh(7)
        try:
            return shared.make(examples, 100)
        except (InputError, SystemExit) as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count), team(count))), streams


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("examples", [list(range(7)), [5], []])
def test_all_get_everything_in_order_and_each_makes_its_share(count: int, examples: list[int]) -> None:
    outputs, streams = run(count, examples)
    assert outputs == [[number**2 + 100 for number in examples]] * count
    assert [stream.seen for stream in streams] == [examples[rank::count] for rank in range(count)]
    assert all(stream.steps == [7] and SharedStream(stream, Processes()).name == "squares" for stream in streams)


def test_what_is_wrong_in_one_ends_all_and_is_said_by_the_first() -> None:
    (first, second), _ = run(2, [1, 13])
    assert isinstance(first, InputError) and str(first) == "no 13"
    assert isinstance(second, SystemExit) and second.code == 2
