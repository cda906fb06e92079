"""Registration of your own parts, in a plugin that `--plugin FILE` or an entry point loads.

Each function adds one entry to a registry; from then on commands, configs and studies know it by its name.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from sightline.config import Config
from sightline.data.formats.layout import FileLayout
from sightline.registry import Entry

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type[Any])


def register_loss(
    name: str, *, parameters: Sequence[Any] = (), needs: Iterable[Any] = (), compares: bool = True
) -> Callable[[F], F]:
    """Decorate a loss: a function of `PairLogps` that returns a `LossOut`.

    Args:
        name: the value of `loss.name` in configs.
        parameters: `losses.table.Parameter`s; each is passed by keyword.
        needs: members of `losses.types.Requirement`: the inputs of the function besides the policy's log-probs.
        compares: whether it learns from rejected answers.

    Example:
        >>> @sl.register_loss("margin", parameters=[Parameter("beta")], needs=[Requirement.REFERENCE])
        ... def margin(policy, reference, *, beta):
        ...     gap = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
        ...     return LossOut((1 - beta * gap).clamp(min=0))
    """
    from sightline.losses.table import LOSSES, LossSpec

    def add(function: F) -> F:
        LOSSES.add(name, LossSpec(function, tuple(parameters), frozenset(needs), compares))
        return function

    return add


def register_builder(
    name: str,
    *,
    config: type[Config],
    help: str,
    needs: Sequence[str] = ("model",),
    most: int | str | None = None,
) -> Callable[[F], F]:
    """Decorate a builder: `build(samples, context, config)` yields one `BuildResult` for each sample.

    Args:
        name: the command `sightline pairs NAME`.
        config: the class of its settings.
        help: one line with its source.
        needs: words out of `model`, `reference`, `judge`, `writer`.
        most: the largest number of pairs that it makes of a sample, or the config key that holds it.
    """
    from sightline.builders.builder import Builder, always, never
    from sightline.builders.registry import BUILDERS, MODEL, REFERENCE, BuilderEntry

    def add(build: F) -> F:
        builder = Builder(
            name=name,
            summary=help,
            config=config,
            build=build,
            needs_model=MODEL in needs,
            needs_reference=always if REFERENCE in needs else never,
        )
        BUILDERS.add(name, BuilderEntry(builder, help, tuple(needs), most))
        return build

    return add


def register_benchmark(name: str, *, help: str, **facts: Any) -> Callable[[F], F]:
    """Decorate a benchmark's factory: `factory(name, setting)` returns an `evals.benchmark.Benchmark`.

    `facts` are further fields of `evals.registry.BenchmarkEntry`: `files`, `needs_images`, `splits`, `has_validation`.
    """
    from sightline.evals.registry import BENCHMARKS, BenchmarkEntry

    def add(factory: F) -> F:
        BENCHMARKS.add(name, BenchmarkEntry(factory, help, **facts))
        return factory

    return add


def register_judge(name: str, *, help: str) -> Callable[[C], C]:
    """Decorate a judge's config class.

    It has `name: Literal[NAME]`, and `open(context)` returns a `judges.judge.Judge`. The judges of a process are
    fixed when the first config with a judge is read, so register them in a plugin.
    """
    from sightline.judges.registry import JUDGES

    def add(config: C) -> C:
        JUDGES.add(name, Entry(config, help))
        return config

    return add


def register_writer(name: str, *, help: str) -> Callable[[C], C]:
    """As `register_judge`, of a writer's config class, whose `open(context)` returns a `writers.writer.Writer`."""
    from sightline.writers.registry import WRITERS

    def add(config: C) -> C:
        WRITERS.add(name, Entry(config, help))
        return config

    return add


def register_layout(layout: FileLayout) -> FileLayout:
    """Add a layout of dataset files, which `sightline import NAME` then reads."""
    from sightline.data.formats.registry import LAYOUTS

    LAYOUTS.add(layout.name, layout)
    return layout


def register_family(*model_types: str) -> Callable[[C], C]:
    """Decorate a `models.families.base.ModelFamily` for checkpoints of these `model_type`s.

    Only register a family that passes the shared conformance tests: packed scoring is trusted for it.
    """
    from sightline.models.families import FAMILIES

    def add(family: C) -> C:
        for model_type in model_types:
            FAMILIES.add(model_type, family())
        return family

    return add
