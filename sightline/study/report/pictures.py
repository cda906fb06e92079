"""Pictures as data URIs, so that the page needs no other file.

Nothing is drawn here (`plots` does). A picture that cannot be opened is left out; the page says so in its place.
"""

import base64
import io
from pathlib import Path

from PIL import Image

from sightline.data.images import open_image
from sightline.errors import InputError

#: Longer sides and larger files than these are shrunk: a page with forty photographs should open on a phone.
MAX_SIDE, MAX_BYTES = 640, 200_000


def data_uri(path: Path, side: int = MAX_SIDE, size: int = MAX_BYTES) -> str | None:
    """The picture as `data:image/...`, its own bytes where these are small; None where it cannot be opened.

    `side` bounds the longer side in pixels; `size` those files in bytes that are taken as they are.
    """
    try:
        image = open_image(path, "report")
        with Image.open(path) as original:
            kind = original.format
    except (InputError, OSError):
        return None
    if kind in {"PNG", "JPEG", "WEBP"} and max(image.size) <= side and path.stat().st_size <= size:
        return _uri(path.read_bytes(), kind)
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return _uri(buffer.getvalue(), "JPEG")


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode('ascii')}"
