"""What goes wrong in preference training, seen in the log: pure functions of step records that give warnings.

A warning is one line with its remedy; it stops nothing and changes no number. The log is `log`; `run` prints each
warning once and keeps it in the manifest.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers
from pydantic import Field, field_validator

from sightline.config import Config
from sightline.errors import InputError
from sightline.train.log import StepRecord

#: The stream of pairs whose answers are both the policy's own.
OWN = "online"
Means = Mapping[str, float]  # of one step: its record's numbers by name, or those of one of its streams


class TrainMonitorConfig(Config):
    """When to warn. Each limit is held against a mean over `window` steps, changes against the first such window.

    Null silences a monitor. `displacement` and `kl` are nats a token: at 0.1 a chosen answer of 50 tokens has become
    150 times less likely; a policy 0.5 nats a token from its reference shares few answers with it. `length` is a share:
    answers that differ by a quarter can be told apart by counting. `yes` is a difference of shares: benchmarks of
    yes/no questions move by less when models get better. `entropy` is the share left of the first entropy. `ties`:
    where most prompts give no pair at the first attempt, pairs cost much and come from prompts whose answers differ
    most, or steps are small (`redraws: 0`). `accuracy` is that of implicit
    rewards, 0.5 being a coin.
    """

    window: int = Field(default=20, ge=1)
    displacement: float | None = Field(default=0.1, gt=0)
    length: float | None = Field(default=0.25, gt=0)
    yes: float | None = Field(default=0.15, gt=0)
    kl: float | None = Field(default=0.5, gt=0)
    entropy: float | None = Field(default=0.5, gt=0, lt=1)
    ties: float | None = Field(default=0.5, gt=0, lt=1)
    accuracy: float | None = Field(default=0.5, gt=0, lt=1)


class Warned(NamedTuple):
    """A warning: which monitor by its limit and remedy, of which stream ("" for all items together), and its line."""

    monitor: str
    remedy: str
    stream: str
    line: str


class Monitor(NamedTuple):
    """What is watched: `value` of a step's means, and `fault`, given its mean at first, its mean now and the limit.

    `name` is the limit's in the config. `later` monitors compare with the beginning, so they wait for a second window.
    `fault` is what went wrong in words, None where nothing did.
    """

    name: str
    value: Callable[[Means], float | None]
    fault: Callable[[float, float, float], str | None]
    remedy: str
    later: bool = False


def _displacement(means: Means) -> float | None:
    """By how many nats a token chosen answers are likelier than under the reference."""
    if not {"chosen_logps", "chosen_ref_logps", "chosen_tokens"} <= means.keys():
        return None
    return (means["chosen_logps"] - means["chosen_ref_logps"]) / max(1.0, means["chosen_tokens"])


def _plain_displacement(means: Means) -> float | None:
    """Without a reference: log-prob of a token of chosen answers, which only its own beginning can be held against."""
    if "chosen_ref_logps" in means or not {"chosen_logps", "chosen_tokens"} <= means.keys():
        return None
    return means["chosen_logps"] / max(1.0, means["chosen_tokens"])


def _length_gap(means: Means) -> float | None:
    """How much longer chosen answers are than rejected ones, as a share of the shorter; below 0 if shorter."""
    chosen, rejected = means.get("chosen_tokens"), means.get("rejected_tokens")
    if not chosen or not rejected or rejected <= 1:  # nothing is rejected, but for the token that ends a turn
        return None
    return (chosen - rejected) / min(chosen, rejected)


def _named(name: str) -> Callable[[Means], float | None]:
    return lambda means: means.get(name)


MONITORS = (
    Monitor(
        "displacement",
        _displacement,
        lambda _, now, limit: (
            f"chosen answers are {-now:.2f} nats a token less likely than under the reference" if now < -limit else None
        ),
        "probability goes to answers that are neither; lower optim.lr, raise loss.beta, or take a loss with a "
        "supervised term",
    ),
    Monitor(
        "displacement",
        _plain_displacement,
        lambda first, now, limit: (
            f"chosen answers have become {first - now:.2f} nats a token less likely" if first - now > limit else None
        ),
        "probability goes to answers that are neither; lower optim.lr, or take a loss with a supervised term",
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
        "the model may learn length alone; balance the pairs (sightline check), or take a loss on means over tokens",
    ),
    Monitor(
        "length",
        _named("answer_tokens"),
        lambda first, now, limit: (
            f"the policy's own answers went from {first:.0f} to {now:.0f} tokens"
            if first > 0 and not 1 / (1 + limit) <= now / first <= 1 + limit
            else None
        ),
        "the judge may like length; look at what it chooses, and compare lengths after training",
        later=True,
    ),
    Monitor(
        "yes",
        _named("yes_ratio"),
        lambda first, now, limit: (
            f"the share of yes among yes/no answers went from {first:.0%} to {now:.0%}"
            if abs(now - first) > limit
            else None
        ),
        "the policy learns to agree or to deny; balance yes and no among the prompts, and look at the judge",
        later=True,
    ),
    Monitor(
        "kl",
        _named("kl"),
        lambda _, now, limit: f"the policy is {now:.2f} nats a token from its reference" if now > limit else None,
        "lower optim.lr, raise loss.beta, or stop earlier",
    ),
    Monitor(
        "entropy",
        _named("entropy"),
        lambda first, now, limit: (
            f"the entropy of the policy's tokens fell from {first:.2f} to {now:.2f} nats"
            if now < limit * first
            else None
        ),
        "its samples grow alike and teach little; lower optim.lr, or raise the sampling temperature",
        later=True,
    ),
    Monitor(
        "ties",
        _named("ties"),
        lambda _, now, limit: (
            f"{now:.0%} of the prompts gave no pair at the first attempt, their answers being tied"
            if now > limit
            else None
        ),
        "sample more answers a prompt, raise the temperature, or take a judge with finer scores",
    ),
    Monitor(
        "accuracy",
        _named("accuracy"),
        lambda _, now, limit: (
            f"only {now:.0%} of the pairs have the higher reward on the chosen answer" if now < limit else None
        ),
        "nothing is learned yet; try another optim.lr, train longer, or check the pairs (sightline check)",
        later=True,
    ),
)


def warnings_after(rows: Sequence[StepRecord], config: TrainMonitorConfig) -> Iterator[Warned]:
    """What is wrong after the last of `rows`, all the steps of a run so far, in all items and in each stream."""
    if len(rows) < config.window:
        return
    streams = sorted({stream for row in rows[-config.window :] for stream in row.streams})
    for stream in ["", *(streams if len(streams) > 1 else ())]:  # one stream is all there is
        first, last = (
            [means_of(row, stream) for row in window] for window in (rows[: config.window], rows[-config.window :])
        )
        for monitor in MONITORS:
            limit = getattr(config, monitor.name)
            if limit is None or (monitor.later and len(rows) < 2 * config.window):
                continue
            before, now = _mean(monitor, first), _mean(monitor, last)
            # A stream that began late has no beginning to be held against.
            fault = None if now is None else monitor.fault(now if before is None else before, now, limit)
            if fault is not None:
                of = f" ({stream})" if stream else ""
                step = rows[-1].step + 1
                yield Warned(
                    monitor.name,
                    monitor.remedy,
                    stream,
                    f"step {step}{of}: {fault} (limit {limit:g}); {monitor.remedy}.",
                )


def means_of(row: StepRecord, stream: str = "") -> Means:
    """The numbers of a step by name, those of its items together or of one stream; empty where it had none.

    Pairs of the policy's own answers also tell their length and, by their log-probs, the policy's divergence from the
    reference.
    """
    if stream:
        means = row.streams.get(stream, {})
        return {**means, **_of_own_answers(means)} if stream == OWN else means
    plain = row.model_dump(exclude={"numbers", "streams"}, exclude_none=True)
    own = _of_own_answers(row.streams[OWN]) if set(row.streams) == {OWN} else {}
    return {**plain, **own, **row.numbers}


def _of_own_answers(means: Means) -> Means:
    """`answer_tokens` and `kl`, each the mean over both answers of a pair."""
    made: dict[str, float] = {}
    for name, sides in (("answer_tokens", "tokens"), ("kl", "kl")):
        chosen, rejected = means.get(f"chosen_{sides}"), means.get(f"rejected_{sides}")
        if chosen is not None and rejected is not None:
            made[name] = (chosen + rejected) / 2
    return made


class TrainMonitor:
    """Warnings of a run as it goes: each monitor speaks once a stream.

    Given the rows of a run that is resumed, it has said what that run has said.
    """

    def __init__(self, config: TrainMonitorConfig, rows: Sequence[StepRecord] = ()) -> None:
        self._config, self._rows = config, list[StepRecord]()
        self._told: dict[tuple[str, str], str] = {}
        for row in rows:
            self.look(row)

    def look(self, row: StepRecord) -> list[str]:
        """The lines that are new after one more step."""
        self._rows.append(row)
        fresh = {(w.remedy, w.stream): w.line for w in warnings_after(self._rows, self._config)}
        fresh = {key: line for key, line in fresh.items() if key not in self._told}
        self._told |= fresh
        return list(fresh.values())

    @property
    def lines(self) -> tuple[str, ...]:
        """All that was said."""
        return tuple(self._told.values())


def _mean(monitor: Monitor, window: Sequence[Means]) -> float | None:
    """The mean of a monitor's value, steps weighted by their items; None where no step has it."""
    found = [(value, means["pairs"]) for means in window if (value := monitor.value(means)) is not None]
    weight = sum(pairs for _, pairs in found)
    return sum(value * pairs for value, pairs in found) / weight if weight else None


NAMES = tuple(sorted(str(name) for name in LOGGER_TYPE_TO_CLASS))
FOLDER = "tracking"  # where trackers that write files do so, within the run's directory

Track = Callable[[StepRecord], None]


class TrackingConfig(Config):
    """Which tracker; `project` is what it files the run under. Its own settings and keys are its environment's."""

    name: str = Field(description=f"one of {', '.join(NAMES)}")
    project: str = Field(default="sightline", min_length=1)

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in NAMES:
            raise ValueError(f"is no tracker; choose one of {', '.join(NAMES)}")
        return value


@contextlib.contextmanager
def open_tracker(config: TrackingConfig | None, run: Path, settings: dict[str, Any], step: int) -> Iterator[Track]:
    """A function that tracks a row, and does nothing without a tracker; `step` is the first that will come.

    Raises:
        InputError: the tracker's package is not installed.
    """
    if config is None:
        yield lambda _: None
        return
    tracker = _open(config, run, step)
    tracker.store_init_configuration(flat_settings(settings))
    try:
        yield lambda row: tracker.log(flat_numbers(row), step=row.step)
    finally:
        tracker.finish()


def flat_numbers(row: StepRecord) -> dict[str, float]:
    """A row's numbers by name; those of a stream as `stream/name`."""
    plain = row.model_dump(exclude={"step", "numbers", "streams"}, exclude_none=True)
    streams = {f"{stream}/{name}": value for stream, means in row.streams.items() for name, value in means.items()}
    return {**plain, **row.numbers, **streams}


def flat_settings(settings: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """A config as trackers take it: `a.b` for a key within a section, text for what is no number."""
    made: dict[str, str | int | float | bool] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            made |= flat_settings(value, f"{prefix}{key}.")
        else:
            made[prefix + key] = value if isinstance(value, str | int | float | bool) else str(value)
    return made


def _open(config: TrackingConfig, run: Path, step: int) -> GeneralTracker:
    kind = next(cls for name, cls in LOGGER_TYPE_TO_CLASS.items() if str(name) == config.name)
    if config.name not in {str(name) for name in get_available_trackers()}:
        raise InputError(f"track.name={config.name} needs a package that is not installed; pip install {config.name}")
    options: dict[str, Any] = {}
    if getattr(kind, "requires_logging_directory", False):
        folder = run / FOLDER
        folder.mkdir(exist_ok=True)
        options["logging_dir"] = folder
    if config.name == "tensorboard":
        options["purge_step"] = step  # what a killed run wrote beyond its checkpoint is done again
    tracker: GeneralTracker = kind(config.project, **options)
    tracker.start()
    return tracker
