"""Judges: score answers or compare two of them; one file per kind, each with its config."""
