"""Training monitors: warnings about common failures of preference training.

Monitors are pure functions of step records. A warning is one line with its remedy; it stops nothing and changes no
number. `run` prints each warning once and records it in the manifest.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pydantic import Field

from sightline.config import Config
from sightline.train.log import StepRecord

#: The stream of pairs whose answers are both sampled from the policy.
ONLINE = "online"
Means = Mapping[str, float]  # of one step: its record's numbers by name, or those of one of its streams


class TrainMonitorConfig(Config):
    """Limits of the monitors, each compared with a mean over `window` steps; null disables a monitor."""

    window: int = Field(
        default=20, ge=1, description="steps that each compared mean covers; changes are relative to the first window"
    )
    displacement: float | None = Field(
        default=0.1,
        gt=0,
        description="nats a token by which chosen answers become less likely; at 0.1, one of 50 tokens is 150 times "
        "less likely; null: off",
    )
    length: float | None = Field(
        default=0.25,
        gt=0,
        description="difference of mean lengths between chosen and rejected answers, or between the policy's answers "
        "now and at the start, as a share of the shorter; null: off",
    )
    yes: float | None = Field(
        default=0.15,
        gt=0,
        description="difference in the share of answers that begin with yes: better models change yes/no benchmarks by "
        "less; null: off",
    )
    kl: float | None = Field(
        default=0.5,
        gt=0,
        description="divergence from the reference, in nats a token; at 0.5 the policy has few answers in common with "
        "it; null: off",
    )
    entropy: float | None = Field(
        default=0.5, gt=0, lt=1, description="warn if the entropy falls below this share of its first value; null: off"
    )
    ties: float | None = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="share of prompts without a pair at the first attempt; above it, pairs are expensive and come from "
        "prompts whose answers differ most; null: off",
    )
    accuracy: float | None = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="warn if the accuracy of implicit rewards is below this; 0.5 is chance; null: off",
    )


class TrainWarning(NamedTuple):
    """A warning: the limit's name, the remedy, the stream ("" for all items together), and the full line."""

    monitor: str
    remedy: str
    stream: str
    line: str


class Monitor(NamedTuple):
    """A monitor: `value` of a step's means, and `fault`, given its first mean, its present mean and the limit.

    `name` is the limit's name in the config. `later` monitors compare with the beginning, so they need a second window.
    `fault` returns a description of the problem, or None.
    """

    name: str
    value: Callable[[Means], float | None]
    fault: Callable[[float, float, float], str | None]
    remedy: str
    later: bool = False


def _displacement(means: Means) -> float | None:
    """Nats a token by which chosen answers are likelier than under the reference."""
    if not {"chosen_logps", "chosen_ref_logps", "chosen_tokens"} <= means.keys():
        return None
    return (means["chosen_logps"] - means["chosen_ref_logps"]) / max(1.0, means["chosen_tokens"])


def _displacement_without_reference(means: Means) -> float | None:
    """Log-prob a token of chosen answers, compared with its own beginning, for losses without a reference."""
    if "chosen_ref_logps" in means or not {"chosen_logps", "chosen_tokens"} <= means.keys():
        return None
    return means["chosen_logps"] / max(1.0, means["chosen_tokens"])


def _length_gap(means: Means) -> float | None:
    """How much longer chosen answers are than rejected ones, as a share of the shorter; negative if shorter."""
    chosen, rejected = means.get("chosen_tokens"), means.get("rejected_tokens")
    if not chosen or not rejected or rejected <= 1:  # the rejected answer is empty except for the end-of-turn token
        return None
    return (chosen - rejected) / min(chosen, rejected)


def _read_mean(name: str) -> Callable[[Means], float | None]:
    return lambda means: means.get(name)


MONITORS = (
    Monitor(
        "displacement",
        _displacement,
        lambda _, now, limit: (
            f"chosen answers are {-now:.2f} nats a token less likely than under the reference" if now < -limit else None
        ),
        "probability moves to answers that are neither; lower optim.lr, raise loss.beta, or use a loss with a "
        "supervised term",
    ),
    Monitor(
        "displacement",
        _displacement_without_reference,
        lambda first, now, limit: (
            f"chosen answers have become {first - now:.2f} nats a token less likely" if first - now > limit else None
        ),
        "probability moves to answers that are neither; lower optim.lr, or use a loss with a supervised term",
        later=True,
    ),
    Monitor(
        "length",
        _length_gap,
        lambda _, now, limit: (
            f"chosen answers are {abs(now):.0%} {'longer' if now > 0 else 'shorter'} than rejected ones"
            if abs(now) > limit
            else None
        ),
        "the model may learn only length; balance the pairs (sightline check), or use a loss on per-token means",
    ),
    Monitor(
        "length",
        _read_mean("answer_tokens"),
        lambda first, now, limit: (
            f"the policy's own answers went from {first:.0f} to {now:.0f} tokens"
            if first > 0 and not 1 / (1 + limit) <= now / first <= 1 + limit
            else None
        ),
        "the judge may prefer length; check its choices, and compare lengths after training",
        later=True,
    ),
    Monitor(
        "yes",
        _read_mean("yes_ratio"),
        lambda first, now, limit: (
            f"the share of yes among yes/no answers went from {first:.0%} to {now:.0%}"
            if abs(now - first) > limit
            else None
        ),
        "the policy may be learning to agree or to deny; balance yes and no among the prompts, and check the judge",
        later=True,
    ),
    Monitor(
        "kl",
        _read_mean("kl"),
        lambda _, now, limit: f"the policy is {now:.2f} nats a token from its reference" if now > limit else None,
        "lower optim.lr, raise loss.beta, or stop earlier",
    ),
    Monitor(
        "entropy",
        _read_mean("entropy"),
        lambda first, now, limit: (
            f"the entropy of the policy's tokens fell from {first:.2f} to {now:.2f} nats"
            if now < limit * first
            else None
        ),
        "its samples become alike and carry little signal; lower optim.lr, or raise the sampling temperature",
        later=True,
    ),
    Monitor(
        "ties",
        _read_mean("ties"),
        lambda _, now, limit: (
            f"{now:.0%} of the prompts gave no pair at the first attempt because their answers tied"
            if now > limit
            else None
        ),
        "sample more answers per prompt, raise the temperature, or use a judge with finer scores",
    ),
    Monitor(
        "accuracy",
        _read_mean("accuracy"),
        lambda _, now, limit: (
            f"only {now:.0%} of the pairs have the higher reward on the chosen answer" if now < limit else None
        ),
        "nothing has been learned yet; try another optim.lr, train longer, or check the pairs (sightline check)",
        later=True,
    ),
)


def warnings_after(rows: Sequence[StepRecord], config: TrainMonitorConfig) -> Iterator[TrainWarning]:
    """The warnings after the last of `rows`, which are all steps of a run so far: for all items and for each stream."""
    if len(rows) < config.window:
        return
    streams = sorted({stream for row in rows[-config.window :] for stream in row.streams})
    for stream in ["", *(streams if len(streams) > 1 else ())]:  # a single stream is all items
        first, last = (
            [step_means(row, stream) for row in window] for window in (rows[: config.window], rows[-config.window :])
        )
        for monitor in MONITORS:
            limit = getattr(config, monitor.name)
            if limit is None or (monitor.later and len(rows) < 2 * config.window):
                continue
            before, now = _mean(monitor, first), _mean(monitor, last)
            # A stream that began late has no first window to compare with.
            fault = None if now is None else monitor.fault(now if before is None else before, now, limit)
            if fault is not None:
                of = f" ({stream})" if stream else ""
                step = rows[-1].step + 1
                yield TrainWarning(
                    monitor.name,
                    monitor.remedy,
                    stream,
                    f"step {step}{of}: {fault} (limit {limit:g}); {monitor.remedy}.",
                )


def step_means(row: StepRecord, stream: str = "") -> Means:
    """The numbers of a step by name, for all its items or for one stream; empty if the step had none of it.

    Pairs of the policy's own answers add the answers' length and, from their log-probs, the policy's divergence from
    the reference.
    """
    if stream:
        means = row.streams.get(stream, {})
        return {**means, **_own_answer_means(means)} if stream == ONLINE else means
    plain = row.model_dump(exclude={"numbers", "streams"}, exclude_none=True)
    own = _own_answer_means(row.streams[ONLINE]) if set(row.streams) == {ONLINE} else {}
    return {**plain, **own, **row.numbers}


def _own_answer_means(means: Means) -> Means:
    """`answer_tokens` and `kl`, each averaged over both answers of a pair."""
    means_by_name: dict[str, float] = {}
    for name, sides in (("answer_tokens", "tokens"), ("kl", "kl")):
        chosen, rejected = means.get(f"chosen_{sides}"), means.get(f"rejected_{sides}")
        if chosen is not None and rejected is not None:
            means_by_name[name] = (chosen + rejected) / 2
    return means_by_name


class TrainMonitor:
    """The warnings of a running training, each given once per stream.

    Initialized with the rows of a resumed run, it does not repeat that run's warnings.
    """

    def __init__(self, config: TrainMonitorConfig, rows: Sequence[StepRecord] = ()) -> None:
        self._config, self._rows = config, list[StepRecord]()
        self._warned: dict[tuple[str, str], str] = {}
        for row in rows:
            self.observe(row)

    def observe(self, row: StepRecord) -> list[str]:
        """The new warning lines after one more step."""
        self._rows.append(row)
        fresh = {(w.remedy, w.stream): w.line for w in warnings_after(self._rows, self._config)}
        fresh = {key: line for key, line in fresh.items() if key not in self._warned}
        self._warned |= fresh
        return list(fresh.values())

    @property
    def lines(self) -> tuple[str, ...]:
        """All warning lines so far."""
        return tuple(self._warned.values())


def _mean(monitor: Monitor, window: Sequence[Means]) -> float | None:
    """The mean of a monitor's value, steps weighted by their items; None if no step has it."""
    found = [(value, means["pairs"]) for means in window if (value := monitor.value(means)) is not None]
    weight = sum(pairs for _, pairs in found)
    return sum(value * pairs for value, pairs in found) / weight if weight else None
