"""Checks of a pair dataset before training: find problems, count them, and write a cleaned copy if asked."""
