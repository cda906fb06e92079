"""What a benchmark is: samples, a pure scorer, and metrics, each a ratio of two weighted sums of per-item values.

No benchmark lives here and nothing is generated here. The names of benchmarks are in `registry`, the intervals of their
metrics in `statistics`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol

from pydantic import Field

from sightline.errors import InputError
from sightline.records.rows import Answer, Row, Sample, Score


class Metric(Row):
    """A number over many scores: sum of weighted values over sum of weighted values, as plain data.

    `numerator` and `denominator` map a name in `Score.values` to its weight; an empty denominator counts one for each
    scored item, so that the metric is a mean. Accuracy, precision, recall, F1 = 2 tp / (2 tp + fp + fn), the yes ratio
    and both CHAIR shares have this form. Being data, a metric is stored beside its scores, so that any reader can
    recompute it; being a ratio of sums, it is resampled by adding up clusters.

    `higher_is_better` is None where neither direction is good by itself (a yes ratio, a length). A `share` lies in
    [0, 1] and is shown in percent; a `number` is shown as it is. `primary` marks the number to quote for a benchmark.
    """

    label: str
    numerator: dict[str, float]
    denominator: dict[str, float] = Field(default_factory=dict)
    higher_is_better: bool | None
    unit: Literal["share", "number"] = "share"
    primary: bool = False

    def terms(self, values: Mapping[str, float | None], where: str) -> tuple[float, float] | None:
        """The item's share of (numerator, denominator); None where a value that the metric needs is unscored.

        `where` names the row in the InputError raised for a value that is absent altogether.
        """
        for name in (*self.numerator, *self.denominator):
            if name not in values:
                raise InputError(
                    f"{where}: the metric {self.label!r} needs a value {name!r} that the row lacks; score again."
                )
            if values[name] is None:
                return None
        top = sum(weight * (values[name] or 0.0) for name, weight in self.numerator.items())
        if not self.denominator:
            return top, 1.0
        return top, sum(weight * (values[name] or 0.0) for name, weight in self.denominator.items())


def mean(
    column: str,
    label: str,
    *,
    higher_is_better: bool | None,
    unit: Literal["share", "number"] = "share",
    primary: bool = False,
) -> Metric:
    """The mean of one value over the scored items."""
    return Metric(label=label, numerator={column: 1.0}, higher_is_better=higher_is_better, unit=unit, primary=primary)


class Benchmark(Protocol):
    """Samples with a scorer. Answers are greedy; questions on one image share the sample's `cluster`.

    `folder` is the directory that the samples' image paths are relative to; it exists once `samples` has been called.
    `score` is pure: same sample and answer, same score. In `Score.details`, `hallucinated` lists the
    [start, end) character spans of the answer's text that are not in the picture; the report marks them.
    """

    @property
    def name(self) -> str: ...

    @property
    def max_new_tokens(self) -> int: ...

    @property
    def folder(self) -> Path: ...

    @property
    def metrics(self) -> Mapping[str, Metric]: ...

    def samples(self) -> Iterator[Sample]: ...

    def score(self, sample: Sample, answer: Answer) -> Score: ...
