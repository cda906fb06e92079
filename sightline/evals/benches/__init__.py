"""Public benchmarks, one module each: samples from official files in a local folder, scored by the official rules.

Modules are imported on use (`evals.registry`), and scoring needs no images, model or torch. Word lists and annotations
of others are read from the user's folder and never shipped.
"""
