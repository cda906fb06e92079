"""Pairs of records that may be one thing in the real world: read, asked about, answered. Training rows are `pairs`."""
