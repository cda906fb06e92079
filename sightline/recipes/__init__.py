"""Recipes: other papers built on the same rooms: curation, composition, entity matching."""
