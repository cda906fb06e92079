"""Cluster-robust (linearized) standard errors, the reference for the bootstrap's."""

from collections.abc import Iterable, Mapping

import numpy as np
from scipy import special

from sightline.evals.cluster_sums import ClusterSums, CompiledMetrics, FloatArray, sum_scores
from sightline.evals.crossed import influences
from sightline.evals.metrics import AnyMetric
from sightline.records.rows import Estimate, Score


def robust_estimate(scores: Iterable[Score], metrics: Mapping[str, AnyMetric]) -> dict[str, Estimate]:
    """Each metric of one model with its cluster-robust standard error and 95 % interval, None where undefined."""
    table, formulas = sum_scores([scores], metrics)
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


def robust_errors(table: ClusterSums, formulas: CompiledMetrics) -> FloatArray:
    """Standard errors [run, metric]; NaN where a metric is undefined or there are fewer than two clusters."""
    return _spread(influences(table, formulas))


def robust_difference_errors(table: ClusterSums, formulas: CompiledMetrics) -> FloatArray:
    """Standard errors [metric] of run 1 minus run 0, paired by cluster."""
    pulls = influences(table, formulas)
    spread: FloatArray = _spread(pulls[1:2] - pulls[0:1])[0]
    return spread


def _spread(pulls: FloatArray) -> FloatArray:
    clusters = pulls.shape[1]
    if clusters < 2:
        return np.full((pulls.shape[0], pulls.shape[2]), np.nan)
    spread: FloatArray = np.sqrt(clusters / (clusters - 1) * np.sum(pulls**2, axis=1))
    return spread
