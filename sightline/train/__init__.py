"""Training: one loop over pairs from any source, with exact resume.

No loss is defined here and nothing is evaluated. `run` is the stage, `loop` the loop, `sources` supplies the items, and
`log` holds the records of each step (importable without torch, for the report).
"""
