"""Recipes of other papers on the same rooms: curation, composition, entity matching."""
