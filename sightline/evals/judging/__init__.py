"""Judges of evaluation: a language model on a server grades answers, and what it said is kept. No metric lives here."""
