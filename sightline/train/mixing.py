"""The source whose pairs are made while it runs: of one stream, or of two by a coin for each example.

It draws examples as the offline source draws pairs, so that with the coin always on one side it is that side. Rows made
for later steps wait here, and in the checkpoint. What a stream makes is `streams`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from sightline.errors import InputError
from sightline.pairs.build import dropped_reason
from sightline.pairs.builder import Made
from sightline.pairs.ranked import TIED, UNSCORED
from sightline.pairs.sentences import starts_with_yes_no
from sightline.records.rows import Pair
from sightline.train.preference import STREAM
from sightline.train.sources import Order, Paused
from sightline.train.streams import Example, Stream

COIN = 2001  # what the random stream is for


@dataclass
class Draw:
    """The pairs of one step and what they took."""

    pairs: list[Pair] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


class StreamSource:
    """Pairs of `streams`, one or two; of two, the first with probability `p` by a coin of (seed, epoch, example).

    The examples of `every` steps are worked on together, by the policy as it is when the first of them is drawn. A pair
    that `refuse` gives a reason against is dropped and counted, as is what the streams drop; a step that is left
    without any pair is passed over.

    Raises:
        Paused: on a draw: a stream failed (the judge is down), or nothing at all was scored. The source stands as it
            stood before, and may be asked again.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        streams: Sequence[Stream],
        order: Order,
        *,
        p: float = 1.0,
        every: int = 1,
        refuse: Callable[[Pair], str | None] = lambda _: None,
    ) -> None:
        if order.count != len(examples) or not 1 <= len(streams) <= 2 or not 0 <= p <= 1:
            raise ValueError("needs an order over the examples, one or two streams, and p from 0 to 1")
        self._examples, self._streams, self._order = examples, streams, order
        self._p, self._every, self._refuse = p, every, refuse
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
        drawn = {number: self._order.draw(number) for number in numbers}
        wanted: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)  # stream, epoch -> step, example
        for number, (epoch, places) in drawn.items():
            for place in places:
                wanted[self._side(epoch, place), epoch].append((number, place))
        made: dict[tuple[int, int], tuple[str, Made]] = {}
        try:
            for side in sorted({side for side, _ in wanted}):
                self._streams[side].refresh(self._drawn)
            for (side, epoch), rows in sorted(wanted.items()):
                stream = self._streams[side]
                found = stream.make([self._examples[place] for _, place in rows], epoch)
                made |= {row: (stream.name, each) for row, each in zip(rows, found, strict=True)}
        except InputError as error:
            raise Paused(f"step {self._drawn}: {error}") from error
        everything = [each for _, each in made.values()]
        if everything and all(each.dropped == UNSCORED for each in everything):
            raise Paused(
                f"step {self._drawn}: the judge scored no answer to any of {len(everything)} prompts; see that it works"
            )
        return {number: self._draw([made[number, place] for place in places]) for number, (_, places) in drawn.items()}

    def _side(self, epoch: int, place: int) -> int:
        """Which stream: one coin an (seed, epoch, example), whatever the step."""
        if len(self._streams) == 1:
            return 0
        coin = np.random.default_rng([self._order.seed, epoch, COIN, place]).random()
        return 0 if coin < self._p else 1

    def _draw(self, rows: Sequence[tuple[str, Made]]) -> Draw:
        """The pairs of a step, in the order of its examples."""
        draw, dropped = Draw(), Counter[str]()
        for name, made in rows:
            if made.dropped:
                dropped[made.dropped] += 1
            for pair in made.pairs:
                reason = dropped_reason(pair) or self._refuse(pair)
                if reason:
                    dropped[reason] += 1
                else:
                    told = {**pair.provenance, STREAM: name}
                    draw.pairs.append(pair.model_copy(update={"provenance": told}))
        draw.dropped = dict(dropped)
        own = [made for name, made in rows if name != "offline"]
        if own:
            draw.numbers = _numbers(own, draw.pairs)
        return draw


def _numbers(made: Sequence[Made], pairs: Sequence[Pair]) -> dict[str, float]:
    """What the policy's own pairs took: shares of its prompts, tokens, and how often it says yes where yes or no."""
    reasons = Counter(each.dropped for each in made)
    tokens = sum(each.tallies.get("generated_tokens", 0.0) for each in made)
    numbers = {
        "ties": reasons[TIED] / len(made),
        "unscored": reasons[UNSCORED] / len(made),
        "without_pair": sum(1 for each in made if not each.pairs) / len(made),
        "generated_tokens": tokens,
    }
    answers = [text for pair in pairs if pair.provenance[STREAM] == "online" for text in (pair.chosen, pair.rejected)]
    decided = [text for text in answers if starts_with_yes_no(text)]
    if decided:
        numbers["yes_ratio"] = sum(text.strip().lower().startswith("yes") for text in decided) / len(decided)
    return numbers
