"""Curation of instruction data with two reward models: Align2LLaVA (arXiv 2409.18541). The stage is `run`."""
