"""Pairs that the policy makes during training: coins, waiting rows, dropped rows, and the state after a pause."""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from sightline.builders.builder import BuildResult
from sightline.builders.ranked import TIED, UNSCORED
from sightline.errors import InputError
from sightline.models.context import TOO_LONG
from sightline.records.rows import Pair, Sample
from sightline.train.preference import STREAM
from sightline.train.sources import OfflineSource, Order, Paused
from sightline.train.stream_source import StreamSource
from sightline.train.streams import OfflineStream, StreamExample


def example(number: int) -> StreamExample:
    name = f"s{number}"
    pair = Pair(id=name, prompt="?", chosen=f"yes {number}", rejected="no", builder="by hand")
    return StreamExample(Sample(id=name, prompt="?"), pair)


EXAMPLES = [example(number) for number in range(9)]


@dataclasses.dataclass
class FixedStream:
    """A stream that answers by (epoch, refresh, example) and remembers when it was asked."""

    name: str = "online"
    reason: str = ""
    of: tuple[str, ...] = ()
    refreshed: list[int] = dataclasses.field(default_factory=list)
    requested: list[str] = dataclasses.field(default_factory=list)
    fails: bool = False
    closed: bool = False

    def refresh(self, step: int) -> None:
        self.refreshed.append(step)

    def make(self, examples: Sequence[StreamExample], epoch: int) -> list[BuildResult]:
        if self.fails:
            raise InputError("no server answers at http://127.0.0.1:1 (refused); start it")
        return [self._result(each.sample.id, epoch) for each in examples]

    def close(self) -> None:
        self.closed = True

    def _result(self, name: str, epoch: int) -> BuildResult:
        self.requested.append(name)
        if self.reason and (not self.of or name in self.of):
            return BuildResult(sample_id=name, dropped=self.reason, tallies={"generated_tokens": 5})
        text = f"Yes, {self.refreshed[-1]}"
        pair = Pair(id=f"{name}@{epoch}", prompt="?", chosen=text, rejected="No.", builder="fixed")
        return BuildResult(sample_id=name, pairs=(pair,), tallies={"generated_tokens": 7})


def source(*streams: FixedStream | OfflineStream, p: float = 1.0, every: int = 1, epochs: int = 3) -> StreamSource:
    return StreamSource(EXAMPLES, streams, Order(9, 4, 5, epochs), p=p, every=every)


def ids(pairs: Sequence[Pair]) -> list[str]:
    return [pair.id for pair in pairs]


def test_a_coin_of_one_side_is_that_side() -> None:
    """With p 1 the steps are those of the offline source, with p 0 those of the other stream, in the same order."""
    given = [each.pair for each in EXAMPLES if each.pair is not None]
    offline = [ids(step) for step in OfflineSource(given, pairs_per_step=4, seed=5, epochs=3)]
    assert [ids(step) for step in source(OfflineStream(), FixedStream(), p=1.0)] == offline
    online = [ids(step) for step in source(FixedStream())]
    assert [ids(step) for step in source(OfflineStream(), FixedStream(), p=0.0)] == online
    assert [[name.partition("@")[0] for name in step] for step in online] == offline
    assert online[-1][0].endswith("@2"), "another epoch, another pair"


def test_the_coin_is_one_for_each_seed_epoch_and_example() -> None:
    """0.25 of 9 x 40 coins; the standard error is 0.023. The side does not depend on how steps are cut."""
    sides: Counter[str] = Counter()
    found = {}
    for step in source(OfflineStream(), FixedStream(), p=0.25, epochs=40):
        for pair in step:
            sides[pair.provenance[STREAM]] += 1
    assert sides.total() == 360 and abs(sides["offline"] / 360 - 0.25) < 3 * 0.023
    for per_step in (2, 9):
        order = Order(9, per_step, 5, 4)
        mixed = StreamSource(EXAMPLES, (OfflineStream(), FixedStream()), order, p=0.5)
        drawn = [pair for step in mixed for pair in step]
        by_epoch = [drawn[9 * epoch : 9 * epoch + 9] for epoch in range(4)]
        found[per_step] = [
            sorted(p.id.partition("@")[0] for p in epoch if p.provenance[STREAM] == "online") for epoch in by_epoch
        ]
    assert found[2] == found[9] and len({str(side) for side in found[2]}) > 1


@pytest.mark.parametrize("every", [1, 2, 5])
def test_rows_made_ahead_wait_in_the_state(every: int) -> None:
    """At any draw a source restored from JSON goes on as the other, without asking again before its turn."""
    expected = list(source(OfflineStream(), FixedStream(), p=0.5, every=every))
    for drawn in range(len(expected)):
        first, stream = source(OfflineStream(), FixedStream(), p=0.5, every=every), FixedStream()
        for _ in range(drawn):
            next(first)
        second = source(OfflineStream(), stream, p=0.5, every=every)
        second.restore(json.loads(json.dumps(first.state())))
        assert list(second) == expected[drawn:]
        assert all(step % every == 0 for step in stream.refreshed)
    stream = FixedStream()
    list(source(stream, every=every))
    assert stream.refreshed == list(range(0, 9, every))


def test_what_is_dropped_is_counted_and_an_empty_step_passed_over() -> None:
    mixed = source(FixedStream(reason=TIED, of=("s1", "s2", "s3", "s5", "s7", "s8")), epochs=1)
    steps, numbers = [], []
    for step in mixed:
        steps.append(ids(step))
        numbers.append(dict(mixed.numbers()))
    assert sorted(name for step in steps for name in step) == ["s0@0", "s4@0", "s6@0"]
    assert mixed.dropped() == {TIED: 6}
    assert numbers[0]["generated_tokens"] > 0 and 0 < numbers[0]["ties"] < 1
    assert numbers[0]["yes_ratio"] == 0.5, "one of each pair's two answers says yes"


def test_closing_the_source_closes_both_streams() -> None:
    streams = (FixedStream(), FixedStream(name="bdhs"))
    source(*streams, p=0.5).close()
    assert all(stream.closed for stream in streams)


def test_a_source_that_cannot_go_on_stands_where_it_stood() -> None:
    """Down at the third draw: the state is that of two draws, and asked again it goes on."""
    expected = list(source(FixedStream()))
    stream = FixedStream()
    mixed = source(stream)
    first = [next(mixed), next(mixed)]
    before = mixed.state()
    stream.fails = True
    for _ in range(2):
        with pytest.raises(Paused, match=r"step 2: no server answers at .*start it"):
            next(mixed)
        assert mixed.state() == before
    stream.fails = False
    assert [*first, *mixed] == expected
    mute = source(FixedStream(reason=UNSCORED))
    with pytest.raises(Paused, match="scored no answer to any of 4 prompts"):
        next(mute)
    assert mute.state()["drawn"] == 0


def test_a_refused_pair_is_dropped_with_its_reason(tmp_path: Path) -> None:
    order = Order(9, 4, 5, 1)
    mixed = StreamSource(
        EXAMPLES, (FixedStream(),), order, refuse=lambda pair: "odd" if pair.id[1] in "13579" else None
    )
    assert sum(len(step) for step in mixed) == 5 and mixed.dropped() == {"odd": 4}


# --- prompts without a pair are drawn again ---------------------------------------------------------------------------


@dataclasses.dataclass
class Tying:
    """A judge's stream that ties in a share of all attempts, by the attempt's id and epoch; some prompts always tie."""

    share: float
    always: tuple[str, ...] = ()
    name: str = "online"
    requested: list[tuple[int, str]] = dataclasses.field(default_factory=list)

    def refresh(self, step: int) -> None:
        """Nothing to do."""

    def make(self, examples: Sequence[StreamExample], epoch: int) -> list[BuildResult]:
        return [self._result(each.sample.id, epoch) for each in examples]

    def close(self) -> None:
        """Nothing to do."""

    def _result(self, name: str, epoch: int) -> BuildResult:
        self.requested.append((epoch, name))
        number = int.from_bytes(hashlib.sha256(f"{epoch} {name}".encode()).digest()[:4], "little") / 2**32
        if number < self.share or name.partition("~")[0] in self.always:
            return BuildResult(sample_id=name, dropped=TIED, tallies={"generated_tokens": 5})
        pair = Pair(id=f"{name}@{epoch}", prompt="?", chosen="Yes.", rejected="No.", builder="tying")
        return BuildResult(sample_id=name, pairs=(pair,), tallies={"generated_tokens": 5})


def mixture(stream: Tying, p: float, redraws: int, count: int = 40, epochs: int = 50) -> StreamSource:
    examples = [example(number) for number in range(count)]
    return StreamSource(examples, (OfflineStream(), stream), Order(count, 8, 3, epochs), p=p, redraws=redraws)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_the_share_of_given_pairs_is_that_of_the_coin_though_answers_tie(p: float) -> None:
    """2,000 coins, 30 % of all attempts tied, two prompts of forty always: without redraws 0.5 would be 0.6."""
    stream = Tying(0.3, always=("s3", "s17"))
    mixed = mixture(stream, p, redraws=3)
    sides, shares = Counter[str](), []
    for step in mixed:
        sides.update(pair.provenance[STREAM] for pair in step)
        shares.append((mixed.numbers()["offline_share"], sum(pair.provenance[STREAM] == "offline" for pair in step)))
        assert shares[-1][0] == shares[-1][1] / len(step)
    assert sides.total() >= 0.995 * 2000
    error = (p * (1 - p) / sides.total()) ** 0.5
    assert abs(sides["offline"] / sides.total() - p) < 2.6 * error
    assert mixed.dropped()[TIED] >= 50 * 2 * (1 - p) * 0.7, "a prompt that always ties is counted each time"
    assert len(stream.requested) == len(set(stream.requested)), "no two attempts draw by the same id"

    before = Counter[str]()
    for step in mixture(Tying(0.3, always=("s3", "s17")), p, redraws=0):
        before.update(pair.provenance[STREAM] for pair in step)
    assert before["offline"] / before.total() - p > 5 * error


def test_a_prompt_is_tried_again_before_another_takes_its_place() -> None:
    stream = Tying(0.0, always=("s3",))
    examples = [example(number) for number in range(4)]
    mixed = StreamSource(examples, (stream,), Order(4, 4, 5, 1), redraws=2)
    (step,) = list(mixed)
    assert [name for _, name in stream.requested if name.startswith("s3")] == ["s3", "s3~1", "s3~2"]
    (other,) = {name for _, name in stream.requested} - {"s0", "s1", "s2", "s3", "s3~1", "s3~2"}
    assert other in {"s0~3-3", "s1~3-3", "s2~3-3"}
    assert sorted(ids(step)) == sorted(["s0@0", "s1@0", "s2@0", f"{other}@0"])
    assert mixed.dropped() == {TIED: 1}
    numbers = mixed.numbers()
    assert (numbers["ties"], numbers["redrawn"], numbers["replaced"], numbers["without_pair"]) == (0.25,) * 3 + (0.0,)
    assert numbers["generated_tokens"] == 7 * 5 and "offline_share" not in numbers


def test_what_stays_tied_after_all_attempts_is_left_out() -> None:
    stream = Tying(0.0, always=("s0", "s1", "s2"))
    examples = [example(number) for number in range(3)]
    mixed = StreamSource([*examples, example(3)], (stream,), Order(4, 4, 5, 1), redraws=1)
    (step,) = list(mixed)
    assert mixed.dropped()[TIED] == 3
    assert len(stream.requested) == 4 + 3 + 3 and 1 <= len(step) <= 4
    alone = StreamSource(examples[:1], (Tying(1.0),), Order(1, 1, 5, 1), redraws=2)
    assert list(alone) == [] and alone.dropped() == {TIED: 1}


def test_a_prompt_that_is_too_long_is_replaced_at_once() -> None:
    stream = FixedStream(reason=TOO_LONG, of=("s2",))
    mixed = StreamSource(EXAMPLES[:4], (stream,), Order(4, 4, 5, 1), redraws=3)
    (step,) = list(mixed)
    assert len(step) == 4 and mixed.dropped() == {TOO_LONG: 1}
    assert [name for name in stream.requested if name.startswith("s2")] == ["s2"]


def test_redraws_are_the_same_after_a_restart_and_with_the_coin_on_one_side() -> None:
    for p in (0.5, 0.0):
        expected = list(mixture(Tying(0.3), p, 3, count=10, epochs=3))
        for drawn in range(len(expected)):
            first, second = (mixture(Tying(0.3), p, 3, count=10, epochs=3) for _ in range(2))
            for _ in range(drawn):
                next(first)
            second.restore(json.loads(json.dumps(first.state())))
            assert list(second) == expected[drawn:]
            assert list(first) == expected[drawn:] and second.dropped() == first.dropped()
    examples = [example(number) for number in range(10)]
    online = StreamSource(examples, (Tying(0.3),), Order(10, 8, 3, 3), redraws=3)
    assert [ids(step) for step in online] == [ids(step) for step in expected]
    given = [each.pair for each in examples if each.pair is not None]
    offline = [ids(step) for step in OfflineSource(given, pairs_per_step=8, seed=3, epochs=3)]
    assert [ids(step) for step in mixture(Tying(1.0), 1.0, 3, count=10, epochs=3)] == offline
