"""What is measured of a text or a picture that a served model saw: words, their buckets, yes, refusal, how it looks.

Simple statistics on purpose: they are cheap enough to be taken while a request waits, need no model, and are kept in
place of what people said. What becomes of them is `apps.monitor`.
"""

import hashlib
import re
from collections import Counter

import numpy as np
from PIL import Image

from sightline.records.requests import BUCKETS, Picture, Wording

_WORD = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")
#: Only the first so many words are measured: a prompt may be a megabyte.
_MOST_WORDS = 5000
#: How answers begin that say no more than that there will be none. Ours; English.
_REFUSAL = re.compile(
    r"\b(?:i(?:\s+am|['\N{RIGHT SINGLE QUOTATION MARK}]m)\s+(?:sorry|unable|not\s+able)"
    r"|i\s+(?:can\s?not|can['\N{RIGHT SINGLE QUOTATION MARK}]t|could\s+not|won['\N{RIGHT SINGLE QUOTATION MARK}]t"
    r"|will\s+not)"
    r"\s+(?:help|assist|answer|see|view|describe|identify|provide|comply|do|tell|say)"
    r"|as\s+an?\s+(?:ai|language\s+model|assistant)\b)",
    re.IGNORECASE,
)
_REFUSAL_WITHIN = 200  # characters; later on it is part of an answer
_PLAIN = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_LOOK = 256  # pixels of the longer side on which a picture's look is measured


def wording_of(text: str) -> Wording:
    """How many words, and by their hash which; the same in every process."""
    words = [word.lower() for word in _WORD.findall(text)[:_MOST_WORDS]]
    counts = Counter(hashlib.blake2b(word.encode(), digest_size=4).digest() for word in words)
    buckets = Counter[int]()
    for digest, count in counts.items():
        buckets[int.from_bytes(digest, "little") % BUCKETS] += count
    return Wording(words=len(words), buckets=dict(sorted(buckets.items())))


def plain_yes(text: str) -> bool | None:
    """Whether an answer begins with yes (True) or no (False); None for any other answer."""
    found = _PLAIN.match(text)
    return None if found is None else found.group(1).lower() == "yes"


def is_refusal(text: str) -> bool:
    """Whether an answer begins by saying that it will not or cannot be given (a list of English phrases)."""
    return _REFUSAL.search(text[:_REFUSAL_WITHIN]) is not None


def picture_of(image: Image.Image, data: bytes) -> Picture:
    """The measures of an RGB image whose file's bytes are `data`; looks are taken from a small copy."""
    small = image.copy()
    small.thumbnail((_LOOK, _LOOK), Image.Resampling.BOX)
    luma = np.asarray(small.convert("L"), dtype=np.float64) / 255
    saturation = np.asarray(small.convert("HSV"), dtype=np.float64)[..., 1] / 255
    steps = np.concatenate([np.abs(np.diff(luma, axis=axis)).ravel() for axis in (0, 1)])
    return Picture(
        sha256=hashlib.sha256(data).hexdigest(),
        width=image.width,
        height=image.height,
        brightness=_rounded(luma.mean()),
        contrast=_rounded(luma.std()),
        saturation=_rounded(saturation.mean()),
        detail=_rounded(steps.mean() if steps.size else 0.0),
    )


def _rounded(value: float) -> float:
    """Six digits are more than any of it means, and make rows short."""
    return round(float(value), 6)
