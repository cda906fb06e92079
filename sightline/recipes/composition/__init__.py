"""Composition of models for several kinds of media that share a language model into one model for all of them.

Nothing is trained here. `run` is the stage, `members` opens the models, `merging` merges adapters through PEFT and
searches their weights; `models.composed` opens the result.
"""
