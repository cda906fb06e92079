"""Watching a served model: is what it is asked and what it answers still what the baseline was?

`betting` is the mathematics, `measures` the numbers of a row, `run` the incremental reading, `page` what people see.
"""
