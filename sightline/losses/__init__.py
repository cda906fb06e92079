"""Losses: pure functions of log-probabilities, and the table of their parameters and needs.

Nothing here uses a model, a batch, a config or a device. Related functions share a file (`dpo`, `kto`), the table is
`table`; `sightline.train.loop` calls them.
"""
