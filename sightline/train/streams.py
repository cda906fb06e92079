"""Streams of pairs for examples: the given pairs, or pairs that the current policy makes.

A stream processes several examples at once; each result depends on (seed, epoch, the example's id) and the policy only.
`stream_source` decides which stream an example goes to, when, and how often it is tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from sightline.builders.bdhs import build_bdhs
from sightline.builders.builder import BuildResult, make_pair
from sightline.builders.ranked import ALIKE, CUT_OFF, TIED, UNSCORED, build_with_judge
from sightline.builders.sampled_answers import (
    Unanswered,
    answer_requests,
    count_tokens,
    distinct_answers,
    sample_answers,
)
from sightline.judges.judge import ComparisonInput, Judge, Preference, prefer
from sightline.models.context import RunContext
from sightline.models.processes import Processes
from sightline.models.requests import judge_input, make_prefix
from sightline.models.vlm import VLM, evaluating
from sightline.records.rows import Pair, Sample
from sightline.train.config.source import OfflineConfig, OnlineBDHSConfig, OnlineConfig, StreamConfig
from sightline.train.pair_filter import locate_errors
from sightline.train.rollout_backends import RolloutBackend, make_backend

OFFLINE = "offline"


@dataclass(frozen=True)
class StreamExample:
    """A prompt to train on, with absolute image paths and a unique sample id; `pair` is the given pair, if any."""

    sample: Sample
    pair: Pair | None = None


class Stream(Protocol):
    """One kind of pairs."""

    @property
    def name(self) -> str: ...

    def refresh(self, step: int) -> None:
        """Use the policy after `step` steps from now on."""
        ...

    def make(self, examples: Sequence[StreamExample], epoch: int, /) -> list[BuildResult]:
        """The result of each example, in order; image paths absolute."""
        ...

    def close(self) -> None:
        """Release resources; no more pairs are made."""
        ...


class OfflineStream:
    """The given pairs."""

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
    """The best and the worst of several answers, by a judge."""

    name = "online"

    def __init__(self, config: OnlineConfig, engine: RolloutBackend, context: RunContext) -> None:
        self._config, self._engine = config, engine
        self._context = replace(context, server=engine)
        self._judge = config.judge.open(context)

    def refresh(self, step: int) -> None:
        self._engine.refresh(step)

    def make(self, examples: Sequence[StreamExample], epoch: int) -> list[BuildResult]:
        samples = [example.sample for example in examples]
        context = _epoch_context(self._context, epoch)
        with locate_errors(samples, context.vlm), evaluating(context.vlm):  # for judges that use the policy itself
            if self._config.choose == "comparison":
                results = compare_answers(samples, context, self._config, self._judge)
            else:
                results = list(build_with_judge(samples, context, self._config.ranked(), self._judge, self.name))
        return [_with_epoch_ids(each, epoch) for each in results]

    def close(self) -> None:
        """Close the backend."""
        self._engine.close()


class BDHSStream:
    """The reference against an answer that the policy makes up with most of the image hidden."""

    name = "bdhs"

    def __init__(self, config: OnlineBDHSConfig, context: RunContext) -> None:
        self._config, self._context = config, context

    def refresh(self, step: int) -> None:
        """Nothing to do: the policy runs in process."""

    def make(self, examples: Sequence[StreamExample], epoch: int) -> list[BuildResult]:
        samples = [example.sample for example in examples]
        context = _epoch_context(self._context, epoch)
        with locate_errors(samples, context.vlm):
            found = {result.sample_id: result for result in build_bdhs(samples, context, self._config)}
        return [_with_epoch_ids(self._add_second_rejected(found[each.sample.id], each), epoch) for each in examples]

    def close(self) -> None:
        """Nothing to do."""

    def _add_second_rejected(self, result: BuildResult, example: StreamExample) -> BuildResult:
        """Add the given pair's rejected answer beside the policy's own (2407.02477, eq. 5)."""
        if not self._config.average or example.pair is None:
            return result
        second = {"second_rejected": example.pair.rejected}
        return result.model_copy(update={"pairs": tuple(pair.model_copy(update=second) for pair in result.pairs)})


def make_stream(
    config: StreamConfig, vlm: VLM, run: Path, *, seed: int, autocast: bool, processes: Processes | None = None
) -> Stream:
    """The stream that a config names, for the run in the directory `run`."""
    context = RunContext(Path(), run / "views", seed, vlm)
    if isinstance(config, OfflineConfig):
        return OfflineStream()
    if isinstance(config, OnlineConfig):
        return OnlineStream(
            config, make_backend(config.engine, vlm, run, autocast=autocast, processes=processes), context
        )
    return BDHSStream(config.model_copy(update={"autocast": autocast}), context)


def compare_answers(
    samples: Sequence[Sample], context: RunContext, config: OnlineConfig, judge: Judge
) -> list[BuildResult]:
    """Pairs of two answers to each sample, compared by the judge."""
    requests = [answer_requests(sample, make_prefix(sample, context.folder), context.seed, 2) for sample in samples]
    answers_by_sample = sample_answers(context, requests, config.ranked())
    twos = [distinct_answers(answers) for answers in answers_by_sample]
    shown = [
        ComparisonInput(*(judge_input(sample, context.folder, answer.text.strip()) for answer in two))
        for sample, two in zip(samples, twos, strict=True)
        if len(two) == 2
    ]
    verdicts = iter(prefer(judge, shown))
    results = []
    for sample, answers, two in zip(samples, answers_by_sample, twos, strict=True):
        verdict = next(verdicts) if len(two) == 2 else None
        unanswered = answers.reason if isinstance(answers, Unanswered) else ""
        reason = unanswered or (ALIKE if len(two) < 2 else _reason(verdict))
        tallies = {"generated_tokens": float(count_tokens(answers))}
        better, worse = (two if verdict == "first" else two[::-1]) if len(two) == 2 else (None, None)
        if not reason and better is not None and not (better.finished or config.unfinished):
            reason = CUT_OFF
        if reason or better is None or worse is None:
            results.append(BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies))
            continue
        provenance = {"judge": judge.identity, "task": sample.task}
        pair = make_pair(sample, OnlineStream.name, better.text, worse.text, provenance=provenance)
        results.append(BuildResult(sample_id=sample.id, pairs=(pair,), tallies=tallies))
    return results


def _reason(verdict: Preference | None) -> str:
    return UNSCORED if verdict is None else TIED if verdict == "tie" else ""


def _epoch_context(context: RunContext, epoch: int) -> RunContext:
    """The context with the epoch's seed, so that every epoch has other samples of the same prompts."""
    number = np.random.SeedSequence([context.seed, epoch]).generate_state(1, np.uint64)[0]
    return replace(context, seed=int(number))


def _with_epoch_ids(result: BuildResult, epoch: int) -> BuildResult:
    """The result with the epoch in its pairs' ids, since each epoch has another pair."""
    pairs = tuple(pair.model_copy(update={"id": f"{pair.id}@{epoch}"}) for pair in result.pairs)
    return result.model_copy(update={"pairs": pairs})


E = TypeVar("E")
M = TypeVar("M")
E_contra = TypeVar("E_contra", contravariant=True)
M_co = TypeVar("M_co", covariant=True)


class ExampleStream(Protocol[E_contra, M_co]):
    """A stream in general: one result per example, depending on the example and the epoch only."""

    @property
    def name(self) -> str: ...

    def refresh(self, step: int) -> None: ...

    def make(self, examples: Sequence[E_contra], epoch: int, /) -> Sequence[M_co]: ...

    def close(self) -> None: ...


class SharedStream(Generic[E, M]):
    """A stream shared by all processes; all must call its methods, with the same arguments.

    An InputError in any process is raised in the first one and ends the others.
    """

    def __init__(self, stream: ExampleStream[E, M], processes: Processes) -> None:
        self._stream, self._processes = stream, processes

    @property
    def name(self) -> str:
        return self._stream.name

    def refresh(self, step: int) -> None:
        """Refresh the stream."""
        self._stream.refresh(step)

    def make(self, examples: Sequence[E], epoch: int, /) -> list[M]:
        """The result of each example, in order."""
        share = self._processes.share(examples)
        results = self._processes.on_all(lambda: list(self._stream.make(share, epoch)) if share else [])
        return self._processes.join(results)

    def close(self) -> None:
        """Close the stream; the only method that is not collective, since one of the processes may have failed."""
        self._stream.close()
