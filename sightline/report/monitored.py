"""Plots of monitored numbers, if a training logged them: KL distance, entropy, own answers, streams of a mixture.

`train.monitors` decides when they are faults; `curves` has the plots that every training has.
"""

from collections.abc import Callable, Iterator, Sequence

from sightline.report.plots import PlotPlan
from sightline.train.log import StepRecord
from sightline.train.monitors import step_means

Runs = Sequence[Sequence[StepRecord]]
Value = Callable[[StepRecord], float | None]

#: Streams in the order in which they get a color; further ones share the last.
_COLORS = ("base", "aligned", "ink")


def monitored_plans(runs: Runs) -> Iterator[PlotPlan]:
    """Plots of all numbers that a step may have logged; those without values are skipped."""
    yield PlotPlan(
        "distance",
        "Distance from the reference",
        "nats a token",
        (
            ("policy's answers", "ink", "-", _number("kl")),
            ("chosen", "chosen", "-", _number("chosen_kl")),
            ("rejected", "rejected", "-", _number("rejected_kl")),
        ),
        "Log-prob of a token under the policy minus that under the reference; over the policy's own answers, its mean "
        "is the KL divergence.",
    )
    yield PlotPlan(
        "entropy",
        "Entropy",
        "nats a token",
        (("policy", "ink", "-", _number("entropy")),),
        "Of what the policy might say at each token of its own answers or of given pairs. Where it falls, samples grow "
        "alike and there is less to choose from.",
    )
    yield PlotPlan(
        "shares",
        "The policy's own answers",
        "share",
        (("tied", "base", "-", _number("ties")), ("yes", "aligned", "-", _number("yes_ratio"))),
        "Share of prompts whose answers the judge could not tell apart, and of yes among answers to yes/no questions.",
    )
    yield PlotPlan(
        "own",
        "Length of the policy's own answers",
        "tokens an answer",
        (("own answers", "ink", "-", _number("answer_tokens")),),
        "A judge that likes length shows here first.",
    )
    streams = sorted({stream for run in runs for step in run for stream in step.streams})
    for name, title, unit in (
        ("margin", "Reward margin by stream", "implicit reward"),
        ("accuracy", "Accuracy by stream", "share of pairs"),
    ):
        series = tuple(
            (stream, _COLORS[min(place, len(_COLORS) - 1)], "-", _number(name, stream))
            for place, stream in enumerate(streams)
        )
        yield PlotPlan(f"{name}-streams", title, unit, series, "The parts of the mixture apart from each other.")


def _number(name: str, stream: str = "") -> Value:
    return lambda step: step_means(step, stream).get(name)
