"""Texts made comparable: normalized, and as 64 bits that say whether two are equal. Likeness is not asked here."""

import hashlib
import re
import sys
import unicodedata

#: Punctuation, separators and controls. A percent sign and the minus of a number carry meaning, as all symbols do.
_BREAKS = {
    code: " "
    for code in range(sys.maxunicode + 1)
    if unicodedata.category(chr(code))[0] in "PZ" or unicodedata.category(chr(code)) in ("Cc", "Cf")
    if chr(code) not in "%-"
}
_HYPHEN = re.compile(r"-(?!\d)|(?<=\w)-")


def normalize(text: str) -> str:
    """Case, punctuation, width and white space taken away; empty where nothing else was there."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    text = text.casefold().translate(_BREAKS)
    if "-" in text:
        text = _HYPHEN.sub(" ", text)
    return " ".join(text.split())


def digest(*parts: str) -> int:
    """64 bits that say whether texts are equal, part by part."""
    joined = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")
