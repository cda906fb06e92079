"""Builders turn samples into preference pairs, with provenance in every row. They compute no gradients."""
