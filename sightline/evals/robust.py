"""Cluster-robust standard errors in closed form, beside the bootstrap: no resampling, for power and very large tables.

A figure is a smooth function of cluster sums; what each cluster adds to it to first order is its influence, and the
variance is the sum of squared influences times C / (C - 1) for C clusters (CR1 without regressors; the linearization of
a ratio is Cochran 1977, sec. 6.5). Intervals are Student's with C - 1 degrees of freedom. Nothing is read here.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy import special

from sightline.evals.metrics import AnyMetric, Derived
from sightline.evals.sums import FloatArray, Formulas, Table, add_up
from sightline.records.rows import Estimate, Score


def robust_estimate(scores: Iterable[Score], metrics: Mapping[str, AnyMetric]) -> dict[str, Estimate]:
    """Each metric of one model with its cluster-robust standard error and 95 % interval, None where there is none."""
    table, formulas = add_up([scores], metrics)
    values = formulas.values(table.sums.sum(axis=1))[0]
    errors = robust_errors(table, formulas)[0]
    half = errors * special.stdtrit(max(1, table.clusters - 1), 0.975)
    return {
        name: Estimate(
            value=None if np.isnan(values[m]) else float(values[m]),
            stderr=None if np.isnan(errors[m]) else float(errors[m]),
            ci95=None if np.isnan(errors[m]) else (float(values[m] - half[m]), float(values[m] + half[m])),
            n=table.scored[name],
            unscored=table.unscored[name],
        )
        for m, name in enumerate(formulas.metrics)
    }


def robust_errors(table: Table, formulas: Formulas) -> FloatArray:
    """Standard errors [run, figure]; NaN where a figure is undefined or there are fewer than two clusters."""
    return _spread(influences(table, formulas))


def robust_difference_errors(table: Table, formulas: Formulas) -> FloatArray:
    """Standard errors [figure] of run 1 minus run 0, paired: the same clusters in both."""
    pulls = influences(table, formulas)
    spread: FloatArray = _spread(pulls[1:2] - pulls[0:1])[0]
    return spread


def influences(table: Table, formulas: Formulas) -> FloatArray:
    """What each cluster adds to each figure to first order, [run, cluster, figure]; they sum to 0 for ratios."""
    totals = table.sums.sum(axis=1)
    values = dict(zip(formulas.metrics, np.moveaxis(formulas.values(totals), -1, 0), strict=True))
    found: dict[str, FloatArray] = {}
    for m, (name, metric) in enumerate(formulas.basic.items()):
        top, bottom = table.sums[..., 2 * m], table.sums[..., 2 * m + 1]
        if metric.total:
            # A sum over C clusters drawn with replacement: their deviations from the mean cluster.
            found[name] = top - top.mean(axis=1, keepdims=True) + 0 * values[name][:, None]
            continue
        whole = totals[:, 2 * m + 1] + metric.epsilon
        with np.errstate(divide="ignore", invalid="ignore"):
            found[name] = (top - values[name][:, None] * (bottom + metric.epsilon / table.clusters)) / whole[:, None]
    for name, figure in formulas.metrics.items():
        if isinstance(figure, Derived):
            slopes = _slopes(figure, values)
            parts = [slope[:, None] * found[part] for part, slope in zip(figure.parts, slopes, strict=True)]
            found[name] = np.sum(parts, axis=0)
    return np.stack([found[name] for name in formulas.metrics], axis=-1)


def _slopes(figure: Derived, values: Mapping[str, FloatArray]) -> list[FloatArray]:
    """The derivative of a figure by each of its parts; rounding has none and is left out; NaN at a spread of 0."""
    weights = list(figure.parts.values())
    if figure.kind == "linear":
        return [np.full_like(next(iter(values.values())), weight) for weight in weights]
    parts = np.stack([weight * values[name] for name, weight in figure.parts.items()])
    if figure.kind == "greatest":
        first = parts.argmax(axis=0)
        return [np.where(first == place, weight, 0.0) for place, weight in enumerate(weights)]
    with np.errstate(divide="ignore", invalid="ignore"):
        if figure.kind == "spread":
            away = (parts - parts.mean(axis=0)) / (len(parts) - 1) / np.std(parts, axis=0, ddof=1)
            return [weight * slope for weight, slope in zip(weights, away, strict=True)]
        one, other = parts
        bottom = (one + other + figure.epsilon) ** 2
        return [
            weights[0] * 2 * other * (other + figure.epsilon) / bottom,
            weights[1] * 2 * one * (one + figure.epsilon) / bottom,
        ]


def _spread(pulls: FloatArray) -> FloatArray:
    clusters = pulls.shape[1]
    if clusters < 2:
        return np.full((pulls.shape[0], pulls.shape[2]), np.nan)
    spread: FloatArray = np.sqrt(clusters / (clusters - 1) * np.sum(pulls**2, axis=1))
    return spread
