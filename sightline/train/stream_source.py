"""The source whose pairs are made while it runs: of one stream, or of two by a coin for each example.

It draws examples as the offline source draws pairs, so that with the coin always on one side it is that side. Where the
policy's answers to a prompt make no pair they are drawn again, so that the shares of a mixture are those of the coin.
Rows made for later steps wait here, and in the checkpoint. What a stream makes is `streams`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from sightline.builders.build import dropped_reason
from sightline.builders.builder import BuildResult
from sightline.builders.ranked import TIED, UNSCORED
from sightline.data.sentences import starts_with_yes_no
from sightline.errors import InputError
from sightline.models.context import TOO_LONG
from sightline.records.rows import Pair
from sightline.train.preference import STREAM
from sightline.train.sources import Order, Paused
from sightline.train.streams import OFFLINE, Stream, StreamExample

COIN, REPLACEMENT = 2001, 2002  # what the random stream is for


@dataclass
class Slot:
    """One example of a step: its stream, and what each attempt made; the last counts, on the example `taken`."""

    step: int
    epoch: int
    place: int
    side: int
    taken: int
    attempts: list[BuildResult] = field(default_factory=list)

    @property
    def made(self) -> BuildResult:
        return self.attempts[-1]

    @property
    def is_filled(self) -> bool:
        """Whether there is a pair that teaches something."""
        return any(dropped_reason(pair) is None for pair in self.made.pairs)

    @property
    def left_out(self) -> str:
        """Why the step's own example is not in it; empty where it is."""
        if self.is_filled and self.taken == self.place:
            return ""
        first = self.attempts[0]
        return first.dropped or next(filter(None, map(dropped_reason, first.pairs)), "")


@dataclass
class Draw:
    """The pairs of one step and what they took."""

    pairs: list[Pair] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


class StreamSource:
    """Pairs of `streams`, one or two; of two, the first with probability `p` by a coin of (seed, epoch, example).

    The examples of `every` steps are worked on together, by the policy as it is when the first of them is drawn. An
    example of which a stream other than the offline one makes no pair (a tie, say) is tried again up to `redraws` times
    with other samples; then other examples take its place, up to `redraws` of them. All of these are drawn by (seed,
    epoch, example, attempt). A pair that `refuse` gives a reason against is dropped and counted, as is an example
    without a pair; a step that is left without any pair is passed over.

    Raises:
        Paused: on a draw: a stream failed (the judge is down), or nothing at all was scored. The source stands as it
            stood before, and may be asked again.
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
                self._waiting = self._make()
            self._last = self._waiting.pop(self._drawn)
            self._drawn += 1
            self._dropped.update(self._last.dropped)
            if self._last.pairs:
                if passed:
                    self._last.numbers["steps_passed_over"] = float(passed.total())
                return self._last.pairs
            passed["steps"] += 1
        raise StopIteration

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
        """Go on after the draws that `state` counts; ValueError if it was taken over another number of examples."""
        if state["pairs"] != len(self._examples):
            raise ValueError(f"the state was taken over {state['pairs']} examples, this source has {self._order.count}")
        self._drawn, self._dropped = state["drawn"], Counter(state["dropped"])
        self._waiting = {
            int(number): Draw([Pair.model_validate(pair) for pair in draw["pairs"]], draw["numbers"], draw["dropped"])
            for number, draw in state["waiting"].items()
        }

    def close(self) -> None:
        """As the streams'."""
        for stream in self._streams:
            stream.close()

    def _make(self) -> dict[int, Draw]:
        """The draws from the next one on to the next refresh."""
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
            if slots and all(slot.made.dropped == UNSCORED for slot in slots):
                raise InputError(f"the judge scored no answer to any of {len(slots)} prompts; see that it works")
            self._fill(slots)
        except InputError as error:
            raise Paused(f"step {self._drawn}: {error}") from error
        return {number: self._draw([slot for slot in slots if slot.step == number]) for number in numbers}

    def _attempt(self, asked: Sequence[tuple[Slot, StreamExample]]) -> None:
        """Let the streams make something of examples, all of one stream and epoch together."""
        together: dict[tuple[int, int], list[tuple[Slot, StreamExample]]] = defaultdict(list)
        for slot, example in asked:
            together[slot.side, slot.epoch].append((slot, example))
        for (side, epoch), rows in sorted(together.items(), key=lambda item: item[0]):
            found = self._streams[side].make([example for _, example in rows], epoch)
            for (slot, _), made in zip(rows, found, strict=True):
                slot.attempts.append(made)

    def _fill(self, slots: Sequence[Slot]) -> None:
        """Draw again where no pair was made: other samples of the same prompt, then other prompts."""
        open_slots = [slot for slot in slots if self._streams[slot.side].name != OFFLINE]
        for attempt in range(1, 2 * self._redraws + 1):
            open_slots = [slot for slot in open_slots if not slot.is_filled]
            again = [(slot, self._again(slot, attempt)) for slot in open_slots]
            self._attempt([(slot, example) for slot, example in again if example is not None])

    def _again(self, slot: Slot, attempt: int) -> StreamExample | None:
        """What is tried next: an example under an id of its own, by which its samples are drawn; None for nothing."""
        if attempt <= self._redraws:
            # Other samples of a prompt that is too long would be as long.
            return None if slot.made.dropped == TOO_LONG else _renamed(self._examples[slot.place], f"{attempt}")
        others = len(self._examples) - 1
        if not others:
            return None
        drawn = np.random.default_rng([self._order.seed, slot.epoch, REPLACEMENT, slot.place, attempt]).integers(others)
        slot.taken = int(drawn) + int(drawn >= slot.place)
        return _renamed(self._examples[slot.taken], f"{attempt}-{slot.place}")

    def _side(self, epoch: int, place: int) -> int:
        """Which stream: one coin an (seed, epoch, example), whatever the step."""
        if len(self._streams) == 1:
            return 0
        coin = np.random.default_rng([self._order.seed, epoch, COIN, place]).random()
        return 0 if coin < self._p else 1

    def _draw(self, slots: Sequence[Slot]) -> Draw:
        """The pairs of a step, in the order of its examples."""
        draw, dropped = Draw(), Counter[str]()
        for slot in slots:
            if slot.left_out:
                dropped[slot.left_out] += 1
            for pair in slot.made.pairs if slot.is_filled else ():
                reason = dropped_reason(pair) or self._refuse(pair)
                if reason:
                    dropped[reason] += 1
                else:
                    told = {**pair.provenance, STREAM: self._streams[slot.side].name}
                    draw.pairs.append(pair.model_copy(update={"provenance": told}))
        draw.dropped = dict(dropped)
        own = [slot for slot in slots if self._streams[slot.side].name != OFFLINE]
        if own:
            draw.numbers = _numbers(own, draw.pairs)
        if len(self._streams) > 1 and draw.pairs:
            first = self._streams[0].name
            draw.numbers[share_name(first)] = _share(first, draw.pairs)
        return draw


def share_name(stream: str) -> str:
    """The name under which the log has a stream's share of the pairs: `offline_share`."""
    return f"{stream}_share"


def _share(stream: str, pairs: Sequence[Pair]) -> float:
    return sum(1 for pair in pairs if pair.provenance[STREAM] == stream) / len(pairs)


def _renamed(example: StreamExample, attempt: str) -> StreamExample:
    """The example under another id: streams draw by the id, and a pair's id begins with it."""
    sample = example.sample
    return replace(example, sample=sample.model_copy(update={"id": f"{sample.id}~{attempt}"}))


def _numbers(slots: Sequence[Slot], pairs: Sequence[Pair]) -> dict[str, float]:
    """What the policy's own pairs took: shares of its prompts, tokens, and how often it says yes where yes or no.

    Ties and unscored prompts are those of the first attempt, tokens those of all.
    """
    reasons = Counter(slot.attempts[0].dropped for slot in slots)
    tokens = sum(made.tallies.get("generated_tokens", 0.0) for slot in slots for made in slot.attempts)
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
