"""The only room that knows model families: load, encode, log-probs, generate, save."""
