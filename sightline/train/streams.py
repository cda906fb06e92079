"""What pairs are made of examples: given ones, or such as the current policy makes.

A stream answers for some examples at once, each by (seed, epoch, the example's id) and the policy alone. Which stream
an example goes to, when, and how often it is tried, is `mixing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from sightline.builders.bdhs import build_bdhs
from sightline.builders.builder import BuildResult, make_pair
from sightline.builders.ranked import ALIKE, CUT_OFF, TIED, UNSCORED, build_with_judge
from sightline.builders.sampled_answers import answer_requests, count_tokens, distinct_answers, sample_answers
from sightline.judges.judge import ComparisonInput, Judge, Preference, prefer
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.requests import judge_input, prefix_of
from sightline.models.vlm import VLM, evaluating
from sightline.records.rows import Pair, Sample
from sightline.train.config.source import OfflineConfig, OnlineBDHSConfig, OnlineConfig, StreamConfig
from sightline.train.naming import naming
from sightline.train.processes import Processes
from sightline.train.rollout_backends import RolloutBackend, make_engine

OFFLINE = "offline"


@dataclass(frozen=True)
class StreamExample:
    """A prompt to train on, images absolute, its sample's id its own; `pair` is the given pair, where there is one."""

    sample: Sample
    pair: Pair | None = None


class Stream(Protocol):
    """One kind of pairs."""

    @property
    def name(self) -> str: ...

    def refresh(self, step: int) -> None:
        """What is made from now on is made by the policy after `step` steps."""
        ...

    def make(self, examples: Sequence[StreamExample], epoch: int, /) -> list[BuildResult]:
        """What came of each example, in order; image paths absolute."""
        ...

    def close(self) -> None:
        """Nothing more is made."""
        ...


class OfflineStream:
    """The pairs that were given."""

    name = OFFLINE

    def refresh(self, step: int) -> None:
        """Nothing to do."""

    def make(self, examples: Sequence[StreamExample], _epoch: int) -> list[BuildResult]:
        return [
            BuildResult(sample_id=example.sample.id, pairs=() if example.pair is None else (example.pair,))
            for example in examples
        ]

    def close(self) -> None:
        """Nothing to do."""


class OnlineStream:
    """Best and worst of several answers, by a judge."""

    name = "online"

    def __init__(self, config: OnlineConfig, engine: RolloutBackend, tools: RunContext) -> None:
        self._config, self._engine = config, engine
        self._tools = replace(tools, answering=engine.sample)
        self._judge = config.judge.open(tools)

    def refresh(self, step: int) -> None:
        self._engine.refresh(step)

    def make(self, examples: Sequence[StreamExample], epoch: int) -> list[BuildResult]:
        samples = [example.sample for example in examples]
        tools = _of_epoch(self._tools, epoch)
        with naming(samples, tools.vlm), evaluating(tools.vlm):  # for judges that ask the policy itself
            if self._config.choose == "comparison":
                made = compared(samples, tools, self._config, self._judge)
            else:
                made = list(build_with_judge(samples, tools, self._config.ranked(), self._judge, self.name))
        return [_renamed(each, epoch) for each in made]

    def close(self) -> None:
        """As the engine's."""
        self._engine.close()


class BDHSStream:
    """The reference against what the policy makes up without most of the picture."""

    name = "bdhs"

    def __init__(self, config: OnlineBDHSConfig, tools: RunContext) -> None:
        self._config, self._tools = config, tools

    def refresh(self, step: int) -> None:
        """Nothing to do: the policy is asked in process."""

    def make(self, examples: Sequence[StreamExample], epoch: int) -> list[BuildResult]:
        samples = [example.sample for example in examples]
        tools = _of_epoch(self._tools, epoch)
        with naming(samples, tools.vlm):
            found = {made.sample_id: made for made in build_bdhs(samples, tools, self._config)}
        return [_renamed(self._averaged(found[each.sample.id], each), epoch) for each in examples]

    def close(self) -> None:
        """Nothing to do."""

    def _averaged(self, made: BuildResult, example: StreamExample) -> BuildResult:
        """With the external pair's rejected answer beside our own (2407.02477, eq. 5)."""
        if not self._config.average or example.pair is None:
            return made
        second = {"second_rejected": example.pair.rejected}
        return made.model_copy(update={"pairs": tuple(pair.model_copy(update=second) for pair in made.pairs)})


def make_stream(
    config: StreamConfig, vlm: VLM, run: Path, *, seed: int, autocast: bool, processes: Processes | None = None
) -> Stream:
    """The stream that a config names, for the run in the directory `run`."""
    tools = RunContext(Path(), run / "views", seed, vlm)
    if isinstance(config, OfflineConfig):
        return OfflineStream()
    if isinstance(config, OnlineConfig):
        return OnlineStream(config, make_engine(config.engine, vlm, run, autocast=autocast, processes=processes), tools)
    return BDHSStream(config.model_copy(update={"autocast": autocast}), tools)


def compared(samples: Sequence[Sample], tools: RunContext, config: OnlineConfig, judge: Judge) -> list[BuildResult]:
    """Two answers to each sample, shown to the judge at once."""
    asked = [answer_requests(sample, prefix_of(sample, tools.folder), tools.seed, 2) for sample in samples]
    said = sample_answers(tools, asked, config.ranked())
    twos = [distinct_answers(answers or ()) for answers in said]
    shown = [
        ComparisonInput(*(judge_input(sample, tools.folder, answer.text.strip()) for answer in two))
        for sample, two in zip(samples, twos, strict=True)
        if len(two) == 2
    ]
    verdicts = iter(prefer(judge, shown))
    made = []
    for sample, answers, two in zip(samples, said, twos, strict=True):
        verdict = next(verdicts) if len(two) == 2 else None
        reason = TOO_LONG if answers is None else ALIKE if len(two) < 2 else _reason(verdict)
        tallies = {"generated_tokens": float(count_tokens(answers or ()))}
        better, worse = (two if verdict == "first" else two[::-1]) if len(two) == 2 else (None, None)
        if not reason and better is not None and not (better.finished or config.unfinished):
            reason = CUT_OFF
        if reason or better is None or worse is None:
            made.append(BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies))
            continue
        provenance = {"judge": judge.identity, "task": sample.task}
        pair = make_pair(sample, OnlineStream.name, better.text, worse.text, provenance=provenance)
        made.append(BuildResult(sample_id=sample.id, pairs=(pair,), tallies=tallies))
    return made


def _reason(verdict: Preference | None) -> str:
    return UNSCORED if verdict is None else TIED if verdict == "tie" else ""


def _of_epoch(tools: RunContext, epoch: int) -> RunContext:
    """Other samples of the same prompts in every epoch."""
    number = np.random.SeedSequence([tools.seed, epoch]).generate_state(1, np.uint64)[0]
    return replace(tools, seed=int(number))


def _renamed(made: BuildResult, epoch: int) -> BuildResult:
    """An id for each epoch: it is another pair."""
    pairs = tuple(pair.model_copy(update={"id": f"{pair.id}@{epoch}"}) for pair in made.pairs)
    return made.model_copy(update={"pairs": pairs})


E = TypeVar("E")
M = TypeVar("M")
E_contra = TypeVar("E_contra", contravariant=True)
M_co = TypeVar("M_co", covariant=True)


class Making(Protocol[E_contra, M_co]):
    """What makes one thing of each example, by the example and the epoch alone, and may be told of a new policy."""

    @property
    def name(self) -> str: ...

    def refresh(self, step: int) -> None: ...

    def make(self, examples: Sequence[E_contra], epoch: int, /) -> Sequence[M_co]: ...

    def close(self) -> None: ...


class SharedStream(Generic[E, M]):
    """A stream as all processes see it together; all must call its methods, with the same arguments.

    Raises InputError in the first process, and ends the others, where the stream raises it in any.
    """

    def __init__(self, stream: Making[E, M], processes: Processes) -> None:
        self._stream, self._processes = stream, processes

    @property
    def name(self) -> str:
        return self._stream.name

    def refresh(self, step: int) -> None:
        """As the stream's."""
        self._stream.refresh(step)

    def make(self, examples: Sequence[E], epoch: int, /) -> list[M]:
        """What came of each example, in order."""
        share = self._processes.share(examples)
        made = self._processes.together(lambda: list(self._stream.make(share, epoch)) if share else [])
        return self._processes.join(made)

    def close(self) -> None:
        """As the stream's, and the one method for which no process waits for another: one of them may have failed."""
        self._stream.close()
