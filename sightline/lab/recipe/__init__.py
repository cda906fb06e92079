"""The training recipe of the lab's base VLM: vision tower, language model with a biased prior, then both jointly.

Used by `sightline lab train-base`; the result, `sightline/lab/base`, is an ordinary Transformers checkpoint.
"""
