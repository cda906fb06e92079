"""Who says which answer is better: protocols with several makers, each a file with its config."""
