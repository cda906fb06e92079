"""Metrics as data: totals, epsilons, groups, derived metrics, None values, streams and the bound on clusters."""

import itertools
import json

import numpy as np
import pytest
from pydantic import TypeAdapter

import sightline.evals.cluster_sums as sums_module
from sightline.evals.cluster_sums import CompiledMetrics, Sums
from sightline.evals.metrics import AnyMetric, Derived, Metric, average, count, mean, required_values
from sightline.evals.statistics import estimate
from sightline.records.rows import Score


def row(number: int, groups: tuple[str, ...] = (), cluster: str = "", **values: float | None) -> Score:
    return Score(sample_id=str(number), cluster=cluster, groups=groups, values=values)


def value(name: str, rows: list[Score], metrics: dict[str, AnyMetric]) -> float | None:
    return estimate(rows, metrics, resamples=100)[name].value


HIT = mean("hit", "Hit", higher_is_better=True)


def test_totals_epsilons_and_weights_by_hand() -> None:
    rows = [row(n, hit=float(n % 2), size=float(n)) for n in range(5)]
    metrics: dict[str, AnyMetric] = {
        "hits": count("hit", "Hits"),
        "per_size": Metric(
            label="", numerator={"hit": 100}, denominator={"size": 2}, epsilon=0.5, higher_is_better=None, unit="number"
        ),
    }
    assert value("hits", rows, metrics) == 2.0
    assert value("per_size", rows, metrics) == 200 / 20.5
    assert required_values(metrics) == ("hit", "size")


def test_a_group_counts_its_own_items_alone() -> None:
    rows = [row(0, ("a",), hit=1), row(1, ("a", "b"), hit=0), row(2, ("b",), hit=None), row(3, hit=1)]
    metrics: dict[str, AnyMetric] = {
        "all": HIT,
        "a": mean("hit", "A", higher_is_better=True, group="a"),
        "b": mean("hit", "B", higher_is_better=True, group="b"),
        "none": mean("absent", "C", higher_is_better=True, group="c"),
        "both": average(("a", "b"), "Both", higher_is_better=True),
        "sum": Derived(label="", kind="linear", parts={"a": 100, "b": 10}, constant=1, higher_is_better=True),
    }
    estimates = estimate(rows, metrics, resamples=100)
    assert {name: (e.value, e.n, e.unscored) for name, e in estimates.items()} == {
        "all": (2 / 3, 3, 1),
        "a": (0.5, 2, 0),
        "b": (0.0, 1, 1),
        "none": (None, 0, 0),
        "both": (0.25, 2, 1),
        "sum": (51.0, 2, 1),
    }


def test_harmonic_means_by_hand_with_epsilon_and_rounding() -> None:
    """P = 2/3, R = 2/4: plainly 4/7; with 0.1 below, 2 P R / (P + R + 0.1); from parts rounded to 0.7 and 0.5."""
    rows = [row(n, tp=float(n < 2), predicted=float(n < 3), there=float(n < 4)) for n in range(6)]
    kinds: dict[str, AnyMetric] = {
        "p": Metric(label="", numerator={"tp": 1}, denominator={"predicted": 1}, higher_is_better=True),
        "r": Metric(label="", numerator={"tp": 1}, denominator={"there": 1}, higher_is_better=True),
    }
    for name, epsilon, decimals in (("plain", 0.0, None), ("epsilon", 0.1, None), ("rounded", 0.0, 1)):
        kinds[name] = Derived(
            label="", kind="harmonic", parts={"p": 1, "r": 1}, epsilon=epsilon, decimals=decimals, higher_is_better=True
        )
    assert value("plain", rows, kinds) == pytest.approx(4 / 7)
    assert value("epsilon", rows, kinds) == pytest.approx(2 / 3 / (2 / 3 + 1 / 2 + 0.1))
    assert value("rounded", rows, kinds) == pytest.approx(0.7 / 1.2)
    assert value("plain", [row(0, tp=0, predicted=1, there=1)], kinds) is None  # 0 / 0


def test_figures_must_follow_their_parts() -> None:
    with pytest.raises(ValueError, match="'both' uses 'a', which does not come before"):
        CompiledMetrics({"both": average(("a",), "", higher_is_better=True), "a": HIT})
    two = Derived(label="", kind="harmonic", parts={"a": 1}, higher_is_better=True)
    with pytest.raises(ValueError, match="'h' needs two parts"):
        CompiledMetrics({"a": HIT, "h": two})


def test_metrics_survive_json() -> None:
    metrics: dict[str, AnyMetric] = {"hits": count("hit", "Hits")}
    metrics["same"] = average(("hits",), "Same", higher_is_better=None)
    text = json.dumps({name: metric.model_dump(mode="json") for name, metric in metrics.items()})
    assert TypeAdapter(dict[str, AnyMetric]).validate_json(text) == metrics


def test_sums_are_those_of_a_plain_loop_whatever_comes_in_which_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of other kinds in between, buffers of 3 rows: sums by cluster as a loop over `Metric.terms` makes them."""
    monkeypatch.setattr(sums_module, "_ROWS_AT_A_TIME", 3)
    rng = np.random.default_rng(0)
    metrics: dict[str, AnyMetric] = {
        "share": Metric(label="", numerator={"a": 1, "b": -2}, denominator={"c": 1}, higher_is_better=None),
        "mean": mean("a", "", higher_is_better=None),
        "grouped": mean("b", "", higher_is_better=None, group="g"),
    }
    rows = []
    for number in range(50):
        names = rng.permutation(["a", "b", "c"])
        values = {str(name): None if rng.random() < 0.1 else float(rng.normal()) for name in names}
        groups = ("g",) if rng.random() < 0.5 else ()
        rows.append(row(number, groups, f"c{rng.integers(7)}", **values))
    sums = Sums(metrics)
    for score in rows:
        sums.add([score])
    expected = np.zeros((7, 6))
    order = {name: place for place, name in enumerate(dict.fromkeys(score.cluster for score in rows))}
    for score, (m, metric) in itertools.product(rows, enumerate(metrics.values())):
        assert isinstance(metric, Metric)
        terms = metric.terms(score.values, "")
        if terms is not None and (not metric.group or metric.group in score.groups):
            expected[order[score.cluster], 2 * m : 2 * m + 2] += terms
    np.testing.assert_allclose(sums.table().sums[0], expected, atol=1e-12)


def test_many_clusters_are_put_together_and_the_interval_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    skill = rng.beta(6, 2, size=4000)
    rows = [row(4 * c + i, (), f"image {c}", hit=float(rng.random() < skill[c])) for c in range(4000) for i in range(4)]
    whole = estimate(rows, {"m": HIT}, resamples=2000)["m"]
    monkeypatch.setattr(sums_module, "MOST_CLUSTERS", 500)
    sums = Sums({"m": HIT})
    for score in rows:
        sums.add([score])
    assert sums.table().clusters == 500
    bound = estimate(rows, {"m": HIT}, resamples=2000)["m"]
    assert bound.value == pytest.approx(whole.value, abs=1e-12)
    assert bound.stderr == pytest.approx(whole.stderr, rel=0.1)
