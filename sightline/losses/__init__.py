"""Losses: pure functions of log-probabilities, and the table that names their needs.

Nothing here sees a model, a batch, a config or a device. The functions are one file each (`dpo`), the table is `table`;
the loop that calls them is `sightline.train.loop`.
"""
