"""The report of a study: one self-contained page with arms, trade-offs, ingredients, training curves and examples.

It reads the records of finished jobs and imports no torch. `writing` is the entry point, `study_results` has the
numbers, `page` the contents.
"""
