"""Drift monitoring of a served model: compares its requests and answers with a baseline.

`betting` has the tests, `measures` the numbers of a log row, `run` the incremental reading, `page` the HTML page.
"""
