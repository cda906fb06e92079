"""Training: one loop over pairs from any source, with exact resume.

No loss is defined here and nothing is evaluated. `run` is the stage, `loop` the loop, `sources` where pairs come from,
`log` what a step leaves behind (importable without torch, for the report).
"""
