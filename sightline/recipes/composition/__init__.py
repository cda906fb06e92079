"""Composing models of several kinds of media that share a language model into one that takes them all.

Nothing is trained here. `run` is the stage, `members` opens what is composed, `merging` merges adapters through PEFT,
`search` finds their weights; the result is opened by `models.composed`.
"""
