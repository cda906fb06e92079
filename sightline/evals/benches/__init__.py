"""Benchmarks of official files, one module each: samples from a local folder, scored by their owners' rules.

None is imported before it is asked for (`evals.registry`), and none needs pictures, a model or torch to score. Word
lists and annotations of others are read from the user's folder and never shipped.
"""
