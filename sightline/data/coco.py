"""The ids in COCO's file names, by which lists of annotations, answers and benchmarks mean one picture.

It opens nothing. Whoever compares names of pictures across files uses it.
"""

import re

_NAME = re.compile(r"(?:^|[/\\])(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.\w+$", re.IGNORECASE)
_STEM = re.compile(r"(?:^|[/\\])COCO_(?:train|val|test)\d{4}_(\d{12})$", re.IGNORECASE)


def coco_id(name: str) -> int:
    """The id in a name of COCO's, such as COCO_val2014_000000391895.jpg or 000000391895.jpg; 0 where there is none."""
    found = _NAME.search(name) or _STEM.search(name)
    return int(found.group(1)) if found else 0
