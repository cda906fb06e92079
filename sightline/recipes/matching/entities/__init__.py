"""Pairs of records that may be one real-world entity: reading, prompts, answers, and the string rule."""
