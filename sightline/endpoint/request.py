"""What is asked of a server and what comes back: the body of a call, its content key, and a picture as a data URL."""

import base64
import io
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from sightline.data.images import open_image
from sightline.endpoint.config import EndpointConfig
from sightline.records import hash_file, hash_json

#: Above this a PNG, which loses nothing, gives way to a JPEG of quality 95: photographs would take megabytes a call.
_PNG_BYTES = 512 * 1024
_SEEDS = 2**31  # llama.cpp and others keep seeds in 32 bits


@dataclass(frozen=True)
class Ask:
    """One user turn, the pictures before the text. `seed` tells apart what is asked several times."""

    text: str
    images: tuple[Path, ...] = ()
    seed: int = 0

    def key(self, config: EndpointConfig) -> str:
        """A hash of all that decides the answer, images by the bytes of their files."""
        images = [hash_file(image) for image in self.images]
        return hash_json(["chat", config.identity, self.text, images, self.seed])

    def body(self, config: EndpointConfig) -> dict[str, Any]:
        """The call's arguments.

        Raises:
            InputError: an image that cannot be opened.
        """
        urls = [_data_url(image, hash_file(image), config.max_side) for image in self.images]
        pictures = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        # A plain string where there is no picture: some servers of language models take nothing else.
        content = [*pictures, {"type": "text", "text": self.text}] if pictures else self.text
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": "user", "content": content}],
            config.limit_name: config.max_tokens,
        }
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.seed is not None:
            body["seed"] = (config.seed + self.seed) % _SEEDS
        return body


@dataclass(frozen=True)
class Reply:
    """What the model said; None where the call failed or the reply was cut off, and `note` says why."""

    text: str | None
    tokens: int = 0
    note: str = ""


@lru_cache(maxsize=64)  # several things are asked about one picture
def _data_url(path: Path, content: str, max_side: int) -> str:  # noqa: ARG001 - the file's hash, lest an old file be sent
    image = open_image(path, f"image {path}")
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    kind, data = "png", _encoded(image, "PNG")
    if len(data) > _PNG_BYTES:
        kind, data = "jpeg", _encoded(image, "JPEG", quality=95)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
