"""Sightline: align vision-language models with what they see."""

__version__ = "0.1.0"
