"""The body of a chat completion as what was asked: history, prompt and pictures; or one sentence why it is refused.

Bodies come from anywhere. Pictures are taken as data URLs alone: a server that fetched addresses for whoever asks would
open its own network and its own files to them. What is passed on is written anew from what was read.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from PIL import Image

from sightline.apps.serve.config import ServeConfig
from sightline.apps.serve.parameters import read_parameters, whole_number
from sightline.apps.serve.refusing import Refused
from sightline.data.images import DAMAGE, FORMATS, open_embedded
from sightline.data.measures import picture_of
from sightline.data.turns import to_turns
from sightline.errors import InputError
from sightline.records.requests import Picture
from sightline.records.rows import IMAGE, Turn

_HEAD = re.compile(r"data:image/[A-Za-z0-9.+-]{1,40};base64")
_DETAILS = ("auto", "low", "high")


@dataclass(frozen=True)
class Asked:
    """What a body asks. `pictures` are their measures, `data` their bytes, in the same order.

    `body` is what is passed on, without the model's name; `is_stream` says in which form the answer is wanted.
    """

    model: str
    history: tuple[Turn, ...]
    prompt: str
    pictures: tuple[Picture, ...]
    data: tuple[bytes, ...]
    body: dict[str, Any] = field(default_factory=dict)
    is_stream: bool = False


def read_body(body: bytes, config: ServeConfig, model: str) -> Asked:
    """What a chat completion's body asks of `model`.

    Raises:
        Refused: it is no such body, asks another model, has a parameter that is not taken, or too many pictures.
    """
    try:
        told = json.loads(body.decode("utf-8"), parse_int=whole_number)
        if not isinstance(told, dict):
            raise TypeError("it must be an object")
        json.dumps(told, ensure_ascii=False).encode()  # a lone surrogate is no character
        messages = told.pop("messages")
        asked_for = told.pop("model", None) or model
        if not isinstance(messages, list) or not isinstance(asked_for, str):
            raise TypeError("messages must be a list, and model a text")
        data: list[bytes] = []
        turns = [(_role(message), _entries(message["content"], data)) for message in messages]
        history, prompt = to_turns(turns)
    except UnicodeError as error:
        raise Refused(400, "the body must be UTF-8, and its texts must have no lone surrogates") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        raise Refused(400, f"the body is no chat completion that this server takes ({said})") from error
    if asked_for != model:
        raise Refused(404, f"model {asked_for[:100]!r} is not served here; name {model!r}, or leave it out")
    parameters = read_parameters(told, config)
    pictures = _measured_all(data, config)
    passed_on = {**parameters, "messages": [_plain(message) for message in messages]}
    return Asked(model, history, prompt, pictures, tuple(data), passed_on, bool(parameters.get("stream")))


def _role(message: dict[str, Any]) -> str:
    role = message["role"]
    if not isinstance(role, str):
        raise TypeError("a role must be a text")
    more = sorted(key for key, value in message.items() if value and key not in ("role", "content", "name"))
    if more:
        raise ValueError(f"a message has {more[0][:60]!r}; role, content and name are taken")
    return {"developer": "system"}.get(role, role)


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message as it is passed on: what was read of it and nothing else."""
    content = message["content"]
    if not isinstance(content, str):
        content = [
            {"type": "text", "text": part["text"]}
            if part["type"] == "text"
            else {"type": "image_url", "image_url": {"url": part["image_url"]["url"]} | _detail(part["image_url"])}
            for part in content
        ]
    name = message.get("name")
    return {"role": message["role"], "content": content} | ({"name": name} if isinstance(name, str) else {})


def _detail(picture: dict[str, Any]) -> dict[str, str]:
    detail = picture.get("detail")
    return {"detail": detail} if detail in _DETAILS else {}


def _entries(content: Any, data: list[bytes]) -> list[str | None]:
    """The texts of a message, None where a picture stands, whose bytes go to `data`."""
    if isinstance(content, str):
        return [_text(content)]
    if not isinstance(content, list):
        raise TypeError("content must be a text or a list of parts")
    entries: list[str | None] = []
    for part in content:
        if part["type"] == "text" and isinstance(part["text"], str):
            entries.append(_text(part["text"]))
        elif part["type"] == "image_url":
            entries.append(None)
            data.append(_bytes_of(part["image_url"]["url"]))
        else:
            raise ValueError(f"a part of type {part['type']!r} is neither text nor image_url")
    return entries


def _text(text: str) -> str:
    if IMAGE in text:
        raise Refused(400, f"a text must not contain {IMAGE}; send a picture as a part of type image_url")
    return text


def _bytes_of(url: Any) -> bytes:
    if not isinstance(url, str) or not url.startswith("data:"):
        raise Refused(400, "a picture must be sent as a data URL; addresses are not fetched")
    head, comma, text = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise Refused(400, "a picture's data URL must be base64")
    if not _HEAD.fullmatch(head):
        raise Refused(400, f"a picture's data URL must begin with data:image/KIND;base64, and not with {head[:60]!r}")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(400, "a picture's data URL is not base64") from error


def _measured_all(data: list[bytes], config: ServeConfig) -> tuple[Picture, ...]:
    """The measures of a call's pictures. All headers are read before the first picture is decoded."""
    if len(data) > config.max_images:
        raise Refused(413, f"the call has {len(data)} pictures; {config.max_images} is the limit")
    pixels = [_pixels(one) for one in data]
    largest = max(pixels, default=0)
    if largest > config.max_pixels:
        raise Refused(413, f"a picture has {largest} pixels; {config.max_pixels} is the limit, send it smaller")
    if sum(pixels) > config.max_call_pixels:
        raise Refused(
            413,
            f"the pictures have {sum(pixels)} pixels together; {config.max_call_pixels} is the limit, send fewer",
        )
    return tuple(_measured(one) for one in data)


def _pixels(data: bytes) -> int:
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:  # its header alone
            return image.width * image.height
    except Image.DecompressionBombError as error:
        raise Refused(413, "a picture has far more pixels than the limit, send it smaller") from error
    except DAMAGE as error:
        raise Refused(400, "a picture is no image that can be read") from error


def _measured(data: bytes) -> Picture:
    try:
        return picture_of(open_embedded(data, "that was sent", "the request"), data)
    except InputError as error:
        raise Refused(400, "a picture is truncated or damaged") from error
