"""Pairs that the policy makes while it trains: what a coin decides, what waits, what is dropped, what a pause keeps."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.pairs.builder import Made
from sightline.pairs.ranked import TIED, UNSCORED
from sightline.records.rows import Pair, Sample
from sightline.train.mixing import StreamSource
from sightline.train.preference import STREAM
from sightline.train.sources import OfflineSource, Order, Paused
from sightline.train.streams import Example, OfflineStream


def example(number: int) -> Example:
    name = f"s{number}"
    pair = Pair(id=name, prompt="?", chosen=f"yes {number}", rejected="no", builder="by hand")
    return Example(Sample(id=name, prompt="?"), pair)


EXAMPLES = [example(number) for number in range(9)]


@dataclasses.dataclass
class Told:
    """A stream that answers by (epoch, refresh, example) and remembers when it was asked."""

    name: str = "online"
    reason: str = ""
    of: tuple[str, ...] = ()
    refreshed: list[int] = dataclasses.field(default_factory=list)
    fails: bool = False
    closed: bool = False

    def refresh(self, step: int) -> None:
        self.refreshed.append(step)

    def make(self, examples: Sequence[Example], epoch: int) -> list[Made]:
        if self.fails:
            raise InputError("no server answers at http://127.0.0.1:1 (refused); start it")
        return [self._made(each.sample.id, epoch) for each in examples]

    def close(self) -> None:
        self.closed = True

    def _made(self, name: str, epoch: int) -> Made:
        if self.reason and (not self.of or name in self.of):
            return Made(sample_id=name, dropped=self.reason, tallies={"generated_tokens": 5})
        said = f"Yes, {self.refreshed[-1]}"
        pair = Pair(id=f"{name}@{epoch}", prompt="?", chosen=said, rejected="No.", builder="told")
        return Made(sample_id=name, pairs=(pair,), tallies={"generated_tokens": 7})


def source(*streams: Told | OfflineStream, p: float = 1.0, every: int = 1, epochs: int = 3) -> StreamSource:
    return StreamSource(EXAMPLES, streams, Order(9, 4, 5, epochs), p=p, every=every)


def ids(pairs: Sequence[Pair]) -> list[str]:
    return [pair.id for pair in pairs]


def test_a_coin_of_one_side_is_that_side() -> None:
    """With p 1 the steps are those of the offline source, with p 0 those of the other stream, in the same order."""
    given = [each.pair for each in EXAMPLES if each.pair is not None]
    offline = [ids(step) for step in OfflineSource(given, pairs_per_step=4, seed=5, epochs=3)]
    assert [ids(step) for step in source(OfflineStream(), Told(), p=1.0)] == offline
    online = [ids(step) for step in source(Told())]
    assert [ids(step) for step in source(OfflineStream(), Told(), p=0.0)] == online
    assert [[name.partition("@")[0] for name in step] for step in online] == offline
    assert online[-1][0].endswith("@2"), "another epoch, another pair"


def test_the_coin_is_one_for_each_seed_epoch_and_example() -> None:
    """0.25 of 9 x 40 coins; the standard error is 0.023. The side does not depend on how steps are cut."""
    sides: Counter[str] = Counter()
    found = {}
    for step in source(OfflineStream(), Told(), p=0.25, epochs=40):
        for pair in step:
            sides[pair.provenance[STREAM]] += 1
    assert sides.total() == 360 and abs(sides["offline"] / 360 - 0.25) < 3 * 0.023
    for per_step in (2, 9):
        order = Order(9, per_step, 5, 4)
        made = StreamSource(EXAMPLES, (OfflineStream(), Told()), order, p=0.5)
        drawn = [pair for step in made for pair in step]
        by_epoch = [drawn[9 * epoch : 9 * epoch + 9] for epoch in range(4)]
        found[per_step] = [
            sorted(p.id.partition("@")[0] for p in epoch if p.provenance[STREAM] == "online") for epoch in by_epoch
        ]
    assert found[2] == found[9] and len({str(side) for side in found[2]}) > 1


@pytest.mark.parametrize("every", [1, 2, 5])
def test_rows_made_ahead_wait_in_the_state(every: int) -> None:
    """At any draw a source restored from JSON goes on as the other, without asking again before its turn."""
    expected = list(source(OfflineStream(), Told(), p=0.5, every=every))
    for drawn in range(len(expected)):
        first, stream = source(OfflineStream(), Told(), p=0.5, every=every), Told()
        for _ in range(drawn):
            next(first)
        second = source(OfflineStream(), stream, p=0.5, every=every)
        second.restore(json.loads(json.dumps(first.state())))
        assert list(second) == expected[drawn:]
        assert all(step % every == 0 for step in stream.refreshed)
    stream = Told()
    list(source(stream, every=every))
    assert stream.refreshed == list(range(0, 9, every))


def test_what_is_dropped_is_counted_and_an_empty_step_passed_over() -> None:
    made = source(Told(reason=TIED, of=("s1", "s2", "s3", "s5", "s7", "s8")), epochs=1)
    steps, numbers = [], []
    for step in made:
        steps.append(ids(step))
        numbers.append(dict(made.numbers()))
    assert sorted(name for step in steps for name in step) == ["s0@0", "s4@0", "s6@0"]
    assert made.dropped() == {TIED: 6}
    assert numbers[0]["generated_tokens"] > 0 and 0 < numbers[0]["ties"] < 1
    assert numbers[0]["yes_ratio"] == 0.5, "one of each pair's two answers says yes"


def test_closing_the_source_closes_both_streams() -> None:
    streams = (Told(), Told(name="bdhs"))
    source(*streams, p=0.5).close()
    assert all(stream.closed for stream in streams)


def test_a_source_that_cannot_go_on_stands_where_it_stood() -> None:
    """Down at the third draw: the state is that of two draws, and asked again it goes on."""
    expected = list(source(Told()))
    stream = Told()
    made = source(stream)
    first = [next(made), next(made)]
    before = made.state()
    stream.fails = True
    for _ in range(2):
        with pytest.raises(Paused, match=r"step 2: no server answers at .*start it"):
            next(made)
        assert made.state() == before
    stream.fails = False
    assert [*first, *made] == expected
    mute = source(Told(reason=UNSCORED))
    with pytest.raises(Paused, match="scored no answer to any of 4 prompts"):
        next(mute)
    assert mute.state()["drawn"] == 0


def test_a_refused_pair_is_dropped_with_its_reason(tmp_path: Path) -> None:
    order = Order(9, 4, 5, 1)
    made = StreamSource(EXAMPLES, (Told(),), order, refuse=lambda pair: "odd" if pair.id[1] in "13579" else None)
    assert sum(len(step) for step in made) == 5 and made.dropped() == {"odd": 4}
