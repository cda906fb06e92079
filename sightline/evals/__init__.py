"""Evaluation: benchmarks, their answers and scores, and metrics with confidence intervals. Nothing here trains."""
