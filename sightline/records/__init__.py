"""Typed rows that stages exchange, and their storage on disk. Nothing here computes."""

from sightline.records.hashing import hash_file, hash_json, hash_tree
from sightline.records.manifest import Manifest, Stage, content_hash, read_manifest
from sightline.records.ratings import AnswerAnnotation, LabelItem, RatedAnswer, Rating, Verdict
from sightline.records.rows import IMAGE, Answer, Estimate, Grade, Pair, Row, Sample, Score, Span, Turn
from sightline.records.store import (
    append_rows,
    atomic_write,
    numbered_rows,
    read_json,
    read_rows,
    set_torn_tail_aside,
    sorted_rows,
    write_json,
    write_rows,
)

__all__ = [
    "IMAGE",
    "Answer",
    "AnswerAnnotation",
    "Estimate",
    "Grade",
    "LabelItem",
    "Manifest",
    "Pair",
    "RatedAnswer",
    "Rating",
    "Row",
    "Sample",
    "Score",
    "Span",
    "Stage",
    "Turn",
    "Verdict",
    "append_rows",
    "atomic_write",
    "content_hash",
    "hash_file",
    "hash_json",
    "hash_tree",
    "numbered_rows",
    "read_json",
    "read_manifest",
    "read_rows",
    "set_torn_tail_aside",
    "sorted_rows",
    "write_json",
    "write_rows",
]
