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
    """Decorate a loss: a function of `PairLogps` (nats, one number per pair) that returns a `LossOut`.

    Args:
        name: the value of `loss.name` in configs.
        parameters: each a `losses.table.Parameter`, passed to the function by keyword.
        needs: members of `losses.types.Requirement`: what the function gets besides the policy's log-probs.
        compares: whether it learns from rejected answers.

    Raises:
        InputError: the name is taken.

    Examples:
        >>> from sightline.losses.table import Parameter
        >>> from sightline.losses.types import LossOut, Requirement
        >>> @sl.register_loss("my-hinge", parameters=[Parameter("beta")], needs=[Requirement.REFERENCE])
        ... def my_hinge(policy, reference, *, beta):
        ...     chosen = beta * (policy.chosen - reference.chosen)
        ...     rejected = beta * (policy.rejected - reference.rejected)
        ...     loss = (1 - (chosen - rejected)).clamp(min=0)
        ...     return LossOut(loss, chosen.detach(), rejected.detach())
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

    `context` is a `models.context.RunContext`. A result should depend on the sample and the seed alone, so that an
    interrupted build resumes with the same pairs.

    Args:
        name: the command `sightline pairs NAME` and the name in configs.
        config: the class of its settings, a subclass of `sightline.config.Config`.
        help: one line with its source.
        needs: words out of `"model"`, `"reference"`, `"judge"`, `"writer"`; `"reference"` refuses samples without one.
        most: the largest number of pairs that it makes of a sample, or the config key that holds it.

    Raises:
        InputError: the name is taken.

    Examples:
        >>> from sightline.builders.builder import BuildResult, make_pair
        >>> from sightline.config import Config
        >>> class ShoutConfig(Config):
        ...     mark: str = "!"
        >>> @sl.register_builder(
        ...     "shout", config=ShoutConfig, help="Loud answers are rejected.", needs=("reference",), most=1
        ... )
        ... def shout(samples, context, config):
        ...     for sample in samples:
        ...         loud = sample.reference.upper() + config.mark
        ...         pair = make_pair(sample, "shout", sample.reference, loud, provenance={})
        ...         yield BuildResult(sample_id=sample.id, pairs=(pair,))
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

    Args:
        name: the name in `sightline eval --bench NAME` and `evaluate`.
        help: one line with its source.
        facts: further fields of `evals.registry.BenchmarkEntry`: `files`, `needs_images`, `splits`, `has_validation`.

    Raises:
        InputError: the name is taken.

    Examples:
        >>> from sightline.evals.yes_no import YES_NO_METRICS, score_yes_no
        >>> @sl.register_benchmark("cups", help="Is there a cup in the image?")
        ... class Cups:
        ...     max_new_tokens = 4
        ...     metrics = YES_NO_METRICS
        ...
        ...     def __init__(self, name, setting):
        ...         self.name, self.folder = name, setting.folder
        ...
        ...     def samples(self):
        ...         yield sl.Sample(id="1", images=("1.png",), prompt="Is there a cup?", cluster="1")
        ...
        ...     def score(self, sample, answer):
        ...         return score_yes_no(answer, truth=True)
    """
    from sightline.evals.registry import BENCHMARKS, BenchmarkEntry

    def add(factory: F) -> F:
        BENCHMARKS.add(name, BenchmarkEntry(factory, help, **facts))
        return factory

    return add


def register_judge(name: str, *, help: str) -> Callable[[C], C]:
    """Decorate a judge's config class, whose `open(context)` returns a `judges.judge.Judge`.

    The class has a field `name: Literal[NAME]`. The judges of a process are fixed when the first config with a judge is
    read, so register them in a plugin.

    Args:
        name: the value of `judge.name` in configs.
        help: one line with its source.

    Raises:
        InputError: the name is taken.
    """
    from sightline.judges.registry import JUDGES

    def add(config: C) -> C:
        JUDGES.add(name, Entry(config, help))
        return config

    return add


def register_writer(name: str, *, help: str) -> Callable[[C], C]:
    """Decorate a writer's config class, whose `open(context)` returns a `writers.writer.Writer`.

    The class has a field `name: Literal[NAME]`. Register it in a plugin, as a judge.

    Args:
        name: the value of `writer.name` in configs.
        help: one line with its source.

    Raises:
        InputError: the name is taken.
    """
    from sightline.writers.registry import WRITERS

    def add(config: C) -> C:
        WRITERS.add(name, Entry(config, help))
        return config

    return add


def register_layout(layout: FileLayout) -> FileLayout:
    """Add a layout of dataset files, which `sightline import NAME` then reads.

    Args:
        layout: its name, and the functions that recognize its columns and read its rows.

    Raises:
        InputError: the name is taken.
    """
    from sightline.data.formats.registry import LAYOUTS

    LAYOUTS.add(layout.name, layout)
    return layout


def register_family(*model_types: str) -> Callable[[C], C]:
    """Decorate a `models.families.base.ModelFamily`: how the engine feeds models of one architecture.

    Only register a family that passes the shared conformance tests (`tests/models/families`), because packed scoring is
    trusted for it. Models without a family are scored one row at a time.

    Args:
        model_types: values of `model_type` in the checkpoints' `config.json`.

    Raises:
        InputError: a family has one of these types.
    """
    from sightline.models.families import FAMILIES

    def add(family: C) -> C:
        for model_type in model_types:
            FAMILIES.add(model_type, family())
        return family

    return add
