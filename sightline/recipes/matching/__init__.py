"""Training rows for entity matching (TailorMatch, arXiv 2409.08185); each step is a stage from samples to samples."""
