"""Comparing what the other rooms made: today the report, which reads records only and never a model."""
