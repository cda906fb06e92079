"""Samples -> preference pairs: one builder a file, provenance in every row. Computes no gradients."""
