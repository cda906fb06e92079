"""How the lab's base VLM is made from seed: a tower that sees, a language model with a biased prior, then both joined.

Only `sightline lab train-base` uses it; the result, `sightline/lab/base`, is an ordinary Transformers checkpoint.
"""
