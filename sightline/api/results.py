"""What the stages return: objects that know their directory, print as a table, and become data frames.

Everything is read from the directory when it is asked for, so an object of a later process is the same.
"""

import html
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.evals.directory import BenchmarkResult, read_evaluation
from sightline.models.spec import ModelSpec, to_spec
from sightline.records import Manifest, Pair, read_manifest
from sightline.report.comparison import Results
from sightline.report.formatting import difference_text, interval_text, p_text, value_text

Rows = Sequence[Mapping[str, Any]]


class _Result(ABC):
    """A directory of a stage."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def manifest(self) -> Manifest:
        """Settings, hashes of the inputs, versions and counts of the stage."""
        return read_manifest(self.path)

    @abstractmethod
    def rows(self) -> Rows:
        """The result as plain rows, which `to_frame` turns into a data frame."""

    def shown(self) -> Rows:
        """The rows that are printed, as texts."""
        return [{key: str(value) for key, value in row.items()} for row in self.rows()]

    def to_frame(self) -> Any:
        """The rows as a pandas data frame.

        Raises:
            InputError: pandas is not installed.
        """
        try:
            import pandas as pd  # type: ignore[import-untyped]
        except ImportError as error:
            raise InputError("to_frame needs pandas; pip install pandas") from error
        return pd.DataFrame(list(self.rows()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __str__(self) -> str:
        return f"{self!r}\n{_plain_table(self.shown())}"

    def _repr_html_(self) -> str:
        return f"<p><code>{html.escape(repr(self))}</code></p>{_html_table(self.shown())}"


class PairSet(_Result):
    """A directory of preference pairs; iterating yields each as a `Pair` whose image paths are absolute.

    Examples:
        >>> pairs = sl.PairSet("runs/first/pairs")
        >>> print(len(pairs), next(iter(pairs)).rejected)
    """

    def __iter__(self) -> Iterator[Pair]:
        folder = self.path.absolute()
        for pair in read_pairs(self.path):
            yield pair.model_copy(update={"images": tuple(str(folder / image) for image in pair.images)})

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def rows(self) -> Rows:
        """One row a pair: id, prompt, chosen, rejected, images, builder."""
        fields = ("id", "prompt", "chosen", "rejected", "images", "builder")
        return [{field: getattr(pair, field) for field in fields} for pair in self]

    def shown(self) -> Rows:
        """The first five pairs."""
        first = [pair for _, pair in zip(range(5), self, strict=False)]
        return [{"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected} for pair in first]


class TrainRun(_Result):
    """A finished training: an adapter or a trained model, its log and manifest.

    Args:
        path: the directory that `train` wrote.
        model: the model that it started from.

    Examples:
        >>> run = sl.TrainRun("runs/first/train", model="sightline/lab/base")
        >>> run.to_frame().plot("step", "loss")
    """

    def __init__(self, path: str | Path, model: ModelSpec | str | Path) -> None:
        super().__init__(path)
        self.model = to_spec(model)

    @property
    def adapter(self) -> Path | None:
        """The PEFT directory, or None where the whole model was trained."""
        return self._part("adapter")

    @property
    def trained_model(self) -> Path | None:
        """The directory of the trained model, or None where an adapter was trained."""
        return self._part("model")

    def rows(self) -> Rows:
        """One row a step: step, loss, margin, accuracy, rate and what else was logged."""
        from sightline.train.log import LOG_NAME, read_log

        return [record.model_dump() for record in read_log(self.path / LOG_NAME)]

    def shown(self) -> Rows:
        """The first and the last step."""
        rows = list(self.rows())
        keys = ("step", "loss", "margin", "accuracy")
        return [
            {key: f"{row[key]:.4g}" if isinstance(row.get(key), float) else str(row.get(key, "")) for key in keys}
            for row in (rows[:1] + rows[-1:] if len(rows) > 1 else rows)
        ]

    def _part(self, name: str) -> Path | None:
        return self.path / name if (self.path / name).is_dir() else None


class Evaluation(_Result):
    """The answers, scores and estimates of one model on some benchmarks.

    Examples:
        >>> base = sl.Evaluation("runs/first/base")
        >>> base.benchmarks["lab-chair"].estimates["chair_s"].ci95
    """

    @property
    def benchmarks(self) -> dict[str, BenchmarkResult]:
        """All records by benchmark: samples, answers, scores, metrics and estimates, in the same order of items."""
        return read_evaluation(self.path)

    def rows(self) -> Rows:
        """One row a metric: benchmark, metric, value, low and high (95 %), stderr, n, unscored; shares are 0 to 1."""
        return [
            {
                "benchmark": result.name,
                "metric": name,
                "value": estimate.value,
                "low": None if estimate.ci95 is None else estimate.ci95[0],
                "high": None if estimate.ci95 is None else estimate.ci95[1],
                "stderr": estimate.stderr,
                "n": estimate.n,
                "unscored": estimate.unscored,
            }
            for result in self.benchmarks.values()
            for name, estimate in result.estimates.items()
        ]

    def shown(self) -> Rows:
        """Every metric with its interval; shares are in percent."""
        return [
            {
                "benchmark": result.name,
                "metric": name,
                "value": value_text(estimate.value, result.metrics[name].unit),
                "95 % interval": interval_text(estimate.ci95, result.metrics[name].unit, signed=False),
                "n": str(estimate.n),
            }
            for result in self.benchmarks.values()
            for name, estimate in result.estimates.items()
        ]


class ComparisonResult(_Result):
    """Two models on the same items, from `compare`; `results` holds every number, as a report's `results.json`."""

    def __init__(self, results: Results) -> None:
        super().__init__(Path())
        self.results = results

    def rows(self) -> Rows:
        """One row a metric: benchmark, metric, base, aligned, difference, interval, p, p by Holm, verdict."""
        return [
            {
                "benchmark": benchmark.name,
                "metric": name,
                "base": metric.base.value,
                "aligned": metric.aligned.value,
                "difference": metric.difference.value,
                "low": None if metric.difference.ci95 is None else metric.difference.ci95[0],
                "high": None if metric.difference.ci95 is None else metric.difference.ci95[1],
                "p": metric.p,
                "p_holm": metric.p_holm,
                "verdict": metric.verdict,
            }
            for benchmark in self.results.benchmarks.values()
            for name, metric in benchmark.metrics.items()
        ]

    def shown(self) -> Rows:
        """Every metric with its difference and verdict; shares are in percent, their differences in points."""
        return [
            {
                "benchmark": benchmark.name,
                "metric": name,
                "base": value_text(metric.base.value, metric.unit),
                "aligned": value_text(metric.aligned.value, metric.unit),
                "difference": difference_text(metric.difference.value, metric.unit),
                "95 % interval": interval_text(metric.difference.ci95, metric.unit, signed=True),
                "p (Holm)": p_text(metric.p_holm),
                "verdict": metric.verdict,
            }
            for benchmark in self.results.benchmarks.values()
            for name, metric in benchmark.metrics.items()
        ]

    def __repr__(self) -> str:
        return f"ComparisonResult({self.results.headline!r})"

    def __str__(self) -> str:
        return f"{self.results.headline}\n{_plain_table(self.shown())}"


class ReportPage(_Result):
    """A report's page; in a notebook it is shown in a frame."""

    def rows(self) -> Rows:
        """No rows: the page is one HTML file, `path`."""
        return []

    def __str__(self) -> str:
        return f"ReportPage({str(self.path)!r})"

    def _repr_html_(self) -> str:
        page = html.escape(self.path.read_text(encoding="utf-8"), quote=True)
        return f'<iframe srcdoc="{page}" sandbox style="width:100%;height:640px;border:0"></iframe>'


def _plain_table(rows: Rows) -> str:
    if not rows:
        return ""
    heads = list(rows[0])
    cells = [heads, *([str(row[head]) for head in heads] for row in rows)]
    cells = [[" ".join(cell.split())[:60] for cell in line] for line in cells]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _html_table(rows: Rows) -> str:
    if not rows:
        return ""
    heads = "".join(f"<th>{html.escape(head)}</th>" for head in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
