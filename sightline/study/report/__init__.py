"""The report: what alignment changed, with intervals, pictures and words, in one self-contained page.

It reads the records of finished stages and imports no torch. `writing` is the entry, `results` the numbers, `page` the
layout.
"""
