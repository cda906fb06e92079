"""Vision-language models: loading, encoding, log-probabilities, generation, adapters. No other room knows families."""
