"""Pictures that stand in a row as text: data URIs (RFC 2397) and bare base64 of a kind of image that is opened.

Whether the bytes are a sound picture is found when they are opened (`data.images`).
"""

import base64
import re

#: How bytes of each kind begin, by the suffix that a file of them gets.
_KINDS = {
    "png": rb"\x89PNG\r\n\x1a\n",
    "jpg": rb"\xff\xd8\xff",
    "gif": rb"GIF8[79]a",
    "webp": rb"RIFF.{4}WEBP",
    "tif": rb"II\*\0|MM\0\*",
    "avif": rb".{4}ftypavi[fs]",
    "bmp": rb"BM.{4}\0{4}",
    "ppm": rb"P[1-6]\s+\d",
}
_LEAST = 64  # characters; no picture is smaller, and paths that could be base64 are mostly shorter
_URI = re.compile(r"data:[^,]*?(?P<base64>;base64)?,", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


class NotEmbedded(Exception):
    """A text that says it is a picture and is none."""


def embedded_picture(text: str) -> tuple[str, bytes] | None:
    """A name with the kind's suffix, and the bytes; None for a text that is no embedded picture, such as a path.

    Raises:
        NotEmbedded: a data URI that is not base64, or base64 of a picture that is damaged.
    """
    if text[:5].lower() == "data:":
        found = _URI.match(text)
        if found is None or not found["base64"]:
            raise NotEmbedded("is a data URI without base64; write the picture to a file, or in base64")
        data = _decoded(text[found.end() :])
        if (kind := _kind(data)) is None:
            raise NotEmbedded("is a data URI of no kind of picture that is read; write it as PNG or JPEG")
        return f"base64.{kind}", data
    if len(text) < _LEAST:
        return None
    start = "".join(text[: 2 * _LEAST].split())[:_LEAST]
    if len(start) < _LEAST or not _BASE64.fullmatch(start) or (kind := _kind(base64.b64decode(start))) is None:
        return None
    return f"base64.{kind}", _decoded(text)


def _kind(data: bytes) -> str | None:
    return next((kind for kind, start in _KINDS.items() if re.match(start, data, re.DOTALL)), None)


def _decoded(text: str) -> bytes:
    """The bytes of base64, whose padding may be missing and which may be broken into lines."""
    text = "".join(text.split())
    if not text or not _BASE64.fullmatch(text) or len(text.rstrip("=")) % 4 == 1:
        raise NotEmbedded("is a picture in base64 that is damaged or cut off; write it again, or drop the row")
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
