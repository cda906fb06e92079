"""Source whose pairs are created while it runs: from one stream, or from two by a coin for each example.

It draws examples as the offline source draws pairs, so if the coin always falls on one side, it equals that side. If
the policy's answers to a prompt give no pair, they are sampled again, so that the shares of a mixture are those of the
coin. Rows for later steps wait here, and in the checkpoint. `streams` defines the streams.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from sightline.builders.build import dropped_reason
from sightline.builders.builder import BuildResult
from sightline.builders.ranked import TIED, UNSCORED
from sightline.data.texts import starts_with_yes_no
from sightline.errors import InputError
from sightline.models.context import TOO_LONG
from sightline.records.rows import Pair
from sightline.train.preference import STREAM
from sightline.train.sources import Order, Paused
from sightline.train.streams import OFFLINE, Stream, StreamExample

COIN, REPLACEMENT = 2001, 2002  # purposes of the random streams


@dataclass
class Slot:
    """One example of a step: its stream and the result of each attempt; the last counts, for the example `taken`."""

    step: int
    epoch: int
    place: int
    side: int
    taken: int
    attempts: list[BuildResult] = field(default_factory=list)

    @property
    def result(self) -> BuildResult:
        return self.attempts[-1]

    @property
    def is_filled(self) -> bool:
        """Whether there is a usable pair."""
        return any(dropped_reason(pair) is None for pair in self.result.pairs)

    @property
    def drop_reason(self) -> str:
        """Why the step's own example is missing from it; empty if it is there."""
        if self.is_filled and self.taken == self.place:
            return ""
        first = self.attempts[0]
        return first.dropped or next(filter(None, map(dropped_reason, first.pairs)), "")


@dataclass
class Draw:
    """The pairs of one step and their statistics."""

    pairs: list[Pair] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


class StreamSource:
    """Pairs of one or two `streams`; of two, the first with probability `p`, by a coin of (seed, epoch, example).

    The examples of `every` steps are processed together, by the policy as of the first of these steps. If a stream
    other than the offline one makes no pair of an example (a tie, say), it is tried again up to `redraws` times with
    other samples; then up to `redraws` other examples replace it. All draws depend on (seed, epoch, example, attempt).
    Pairs that `refuse` gives a reason against are dropped and counted, as are examples without a pair; a step without
    any pair is skipped.

    Raises:
        Paused: on a draw: a stream failed (the judge is down), or no answer was scored. The source's state is that
            before the draw, and it may be drawn again.
    """

    def __init__(
        self,
        examples: Sequence[StreamExample],
        streams: Sequence[Stream],
        order: Order,
        *,
        p: float = 1.0,
        every: int = 1,
        redraws: int = 0,
        refuse: Callable[[Pair], str | None] = lambda _: None,
    ) -> None:
        if order.count != len(examples) or not 1 <= len(streams) <= 2 or not 0 <= p <= 1:
            raise ValueError("needs an order over the examples, one or two streams, and p from 0 to 1")
        self._examples, self._streams, self._order = examples, streams, order
        self._p, self._every, self._redraws, self._refuse = p, every, redraws, refuse
        self._drawn = 0
        self._waiting: dict[int, Draw] = {}
        self._last = Draw()
        self._dropped: Counter[str] = Counter()

    @property
    def steps(self) -> int:
        return self._order.steps

    @property
    def repeats(self) -> bool:
        return self._order.steps > self._order.steps_per_epoch

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Pair]:
        passed = Counter[str]()
        while self._drawn < self.steps:
            if self._drawn not in self._waiting:
                self._waiting = self._make_draws()
            self._last = self._waiting.pop(self._drawn)
            self._drawn += 1
            self._dropped.update(self._last.dropped)
            if self._last.pairs:
                if passed:
                    self._last.numbers["steps_passed_over"] = float(passed.total())
                return self._last.pairs
            passed["steps"] += 1
        raise StopIteration

    def upcoming(self) -> Sequence[Any]:
        """Nothing: the policy's answers do not exist yet."""
        return ()

    def numbers(self) -> Mapping[str, float]:
        return self._last.numbers

    def dropped(self) -> Mapping[str, int]:
        return self._dropped

    def state(self) -> dict[str, Any]:
        waiting = {
            str(number): {
                "pairs": [pair.model_dump(mode="json") for pair in draw.pairs],
                "numbers": draw.numbers,
                "dropped": draw.dropped,
            }
            for number, draw in self._waiting.items()
        }
        return {
            "drawn": self._drawn,
            "pairs": len(self._examples),
            "dropped": dict(self._dropped),
            "waiting": waiting,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue after the draws that `state` counts; ValueError if it is of another number of examples."""
        if state["pairs"] != len(self._examples):
            raise ValueError(f"the state was taken over {state['pairs']} examples, this source has {self._order.count}")
        self._drawn, self._dropped = state["drawn"], Counter(state["dropped"])
        self._waiting = {
            int(number): Draw([Pair.model_validate(pair) for pair in draw["pairs"]], draw["numbers"], draw["dropped"])
            for number, draw in state["waiting"].items()
        }

    def close(self) -> None:
        """Close the streams."""
        for stream in self._streams:
            stream.close()

    def _make_draws(self) -> dict[int, Draw]:
        """The draws from the next one to the next refresh."""
        numbers = range(self._drawn, min(self._drawn + self._every, self.steps))
        slots = [
            Slot(number, epoch, place, self._side(epoch, place), taken=place)
            for number in numbers
            for epoch, places in [self._order.draw(number)]
            for place in places
        ]
        try:
            for side in sorted({slot.side for slot in slots}):
                self._streams[side].refresh(self._drawn)
            self._attempt([(slot, self._examples[slot.place]) for slot in slots])
            if slots and all(slot.result.dropped == UNSCORED for slot in slots):
                raise InputError(f"the judge scored no answer to any of {len(slots)} prompts; check the judge")
            self._fill(slots)
        except InputError as error:
            raise Paused(f"step {self._drawn}: {error}") from error
        return {number: self._draw([slot for slot in slots if slot.step == number]) for number in numbers}

    def _attempt(self, requests: Sequence[tuple[Slot, StreamExample]]) -> None:
        """Make pairs of examples, all of one stream and epoch together."""
        together: dict[tuple[int, int], list[tuple[Slot, StreamExample]]] = defaultdict(list)
        for slot, example in requests:
            together[slot.side, slot.epoch].append((slot, example))
        for (side, epoch), rows in sorted(together.items(), key=lambda item: item[0]):
            found = self._streams[side].make([example for _, example in rows], epoch)
            for (slot, _), result in zip(rows, found, strict=True):
                slot.attempts.append(result)

    def _fill(self, slots: Sequence[Slot]) -> None:
        """Retry slots without a pair: first with other samples of the prompt, then with other prompts."""
        open_slots = [slot for slot in slots if self._streams[slot.side].name != OFFLINE]
        for attempt in range(1, 2 * self._redraws + 1):
            open_slots = [slot for slot in open_slots if not slot.is_filled]
            again = [(slot, self._redraw(slot, attempt)) for slot in open_slots]
            self._attempt([(slot, example) for slot, example in again if example is not None])

    def _redraw(self, slot: Slot, attempt: int) -> StreamExample | None:
        """The next example to try, with an id of its attempt that seeds its samples; None if there is none."""
        if attempt <= self._redraws:
            # Another sample of a prompt that is too long has the same length.
            return (
                None if slot.result.dropped == TOO_LONG else _with_attempt_id(self._examples[slot.place], f"{attempt}")
            )
        others = len(self._examples) - 1
        if not others:
            return None
        drawn = np.random.default_rng([self._order.seed, slot.epoch, REPLACEMENT, slot.place, attempt]).integers(others)
        slot.taken = int(drawn) + int(drawn >= slot.place)
        return _with_attempt_id(self._examples[slot.taken], f"{attempt}-{slot.place}")

    def _side(self, epoch: int, place: int) -> int:
        """The stream's index: one coin per (seed, epoch, example), independent of the step."""
        if len(self._streams) == 1:
            return 0
        coin = np.random.default_rng([self._order.seed, epoch, COIN, place]).random()
        return 0 if coin < self._p else 1

    def _draw(self, slots: Sequence[Slot]) -> Draw:
        """The pairs of a step, in the order of its examples."""
        draw, dropped = Draw(), Counter[str]()
        for slot in slots:
            if slot.drop_reason:
                dropped[slot.drop_reason] += 1
            for pair in slot.result.pairs if slot.is_filled else ():
                reason = dropped_reason(pair) or self._refuse(pair)
                if reason:
                    dropped[reason] += 1
                else:
                    labeled = {**pair.provenance, STREAM: self._streams[slot.side].name}
                    draw.pairs.append(pair.model_copy(update={"provenance": labeled}))
        draw.dropped = dict(dropped)
        own = [slot for slot in slots if self._streams[slot.side].name != OFFLINE]
        if own:
            draw.numbers = _numbers(own, draw.pairs)
        if len(self._streams) > 1 and draw.pairs:
            first = self._streams[0].name
            draw.numbers[share_name(first)] = _share(first, draw.pairs)
        return draw


def share_name(stream: str) -> str:
    """The log's name of a stream's share of the pairs: `offline_share`."""
    return f"{stream}_share"


def _share(stream: str, pairs: Sequence[Pair]) -> float:
    return sum(1 for pair in pairs if pair.provenance[STREAM] == stream) / len(pairs)


def _with_attempt_id(example: StreamExample, attempt: str) -> StreamExample:
    """The example with another id: streams seed by the id, and a pair's id begins with it."""
    sample = example.sample
    return replace(example, sample=sample.model_copy(update={"id": f"{sample.id}~{attempt}"}))


def _numbers(slots: Sequence[Slot], pairs: Sequence[Pair]) -> dict[str, float]:
    """Statistics of the policy's own pairs: shares of its prompts, tokens, and the share of yes among yes/no answers.

    Ties and unscored prompts are those of the first attempt, tokens those of all attempts.
    """
    reasons = Counter(slot.attempts[0].dropped for slot in slots)
    tokens = sum(result.tallies.get("generated_tokens", 0.0) for slot in slots for result in slot.attempts)
    numbers = {
        "ties": reasons[TIED] / len(slots),
        "unscored": reasons[UNSCORED] / len(slots),
        "redrawn": sum(len(slot.attempts) > 1 for slot in slots) / len(slots),
        "replaced": sum(slot.is_filled and slot.taken != slot.place for slot in slots) / len(slots),
        "without_pair": sum(not slot.is_filled for slot in slots) / len(slots),
        "generated_tokens": tokens,
    }
    answers = [text for pair in pairs if pair.provenance[STREAM] == "online" for text in (pair.chosen, pair.rejected)]
    decided = [text for text in answers if starts_with_yes_no(text)]
    if decided:
        numbers["yes_ratio"] = sum(text.strip().lower().startswith("yes") for text in decided) / len(decided)
    return numbers
