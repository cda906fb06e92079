"""Grading of benchmark answers by a language model on a server; its replies are stored."""
