"""The report of a study: what each arm changed against a baseline, in one self-contained page.

It reads the ledger and the directories of finished pieces, and no model. `writing` is the entry, `page` the order of
things; the report of one aligned model is the package above.
"""
