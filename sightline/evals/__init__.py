"""Measuring a model: benchmarks, their answers and scores, and numbers with honest intervals. Nothing here trains."""
