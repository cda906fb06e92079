"""The body of a chat completion as what was asked: history, prompt and pictures; or one sentence why it is refused.

Bodies come from anywhere. Pictures are taken as data URLs alone: a server that fetched addresses for whoever asks would
open its own network and its own files to them.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from PIL import Image

from sightline.data.images import DAMAGE, FORMATS, open_embedded
from sightline.data.measures import picture_of
from sightline.data.turns import to_turns
from sightline.errors import InputError
from sightline.records.requests import Picture
from sightline.records.rows import Turn


class Refused(Exception):
    """Why a body is not passed on, as a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(frozen=True)
class Asked:
    """What a body asks. `pictures` are their measures, `data` their bytes, in the same order."""

    model: str
    history: tuple[Turn, ...]
    prompt: str
    pictures: tuple[Picture, ...]
    data: tuple[bytes, ...]


def read_body(body: bytes, *, max_pixels: int) -> Asked:
    """What a chat completion's body asks.

    Raises:
        Refused: it is no such body, a picture is given by an address, is no picture, or has more than `max_pixels`.
    """
    try:
        told = json.loads(body)
        messages = told["messages"]
        model = told.get("model") or ""
        if not isinstance(messages, list) or not isinstance(model, str):
            raise TypeError("messages must be a list, and model a text")
        data: list[bytes] = []
        turns = [(_role(message), _entries(message["content"], data)) for message in messages]
        history, prompt = to_turns(turns)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise Refused(400, f"the body is no chat completion that this server takes ({said})") from error
    return Asked(model, history, prompt, tuple(_measured(one, max_pixels) for one in data), tuple(data))


def _role(message: dict[str, Any]) -> str:
    role = message["role"]
    if not isinstance(role, str):
        raise TypeError("a role must be a text")
    return {"developer": "system"}.get(role, role)


def _entries(content: Any, data: list[bytes]) -> list[str | None]:
    """The texts of a message, None where a picture stands, whose bytes go to `data`."""
    if isinstance(content, str):
        return [content]
    entries: list[str | None] = []
    for part in content:
        if part["type"] == "text" and isinstance(part["text"], str):
            entries.append(part["text"])
        elif part["type"] == "image_url":
            entries.append(None)
            data.append(_bytes_of(part["image_url"]["url"]))
        else:
            raise ValueError(f"a part of type {part['type']!r} is neither text nor image_url")
    return entries


def _bytes_of(url: Any) -> bytes:
    if not isinstance(url, str) or not url.startswith("data:"):
        raise Refused(400, "a picture must be sent as a data URL; addresses are not fetched")
    head, comma, text = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise Refused(400, "a picture's data URL must be base64")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "a picture's data URL is not base64") from error


def _measured(data: bytes, max_pixels: int) -> Picture:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:  # its header alone
            pixels = image.width * image.height
    except DAMAGE as error:
        raise Refused(400, "a picture is no image that can be read") from error
    if pixels > max_pixels:
        raise Refused(413, f"a picture has {pixels} pixels; {max_pixels} is the limit, send it smaller")
    try:
        return picture_of(open_embedded(data, "that was sent", "the request"), data)
    except InputError as error:
        raise Refused(400, "a picture is truncated or damaged") from error
