"""The body of a chat completion as what was asked: history, prompt and pictures; or one sentence why it is refused.

Bodies come from anywhere. Pictures are taken as data URLs alone: a server that fetched addresses for whoever asks would
open its own network and its own files to them. What is passed on is written anew from what was read.
"""

import base64
import binascii
import json
import math
import re
from dataclasses import dataclass, field
from io import BytesIO
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sightline.apps.serve.config import ServeConfig
from sightline.config.problems import describe
from sightline.data.images import DAMAGE, FORMATS, open_embedded
from sightline.data.request_log import measure_picture
from sightline.data.turns import to_turns
from sightline.errors import InputError
from sightline.records.ratings import LoggedPicture
from sightline.records.rows import IMAGE, Turn


class Refused(Exception):
    """Why a body is not passed on, as a status and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


_Stop = Annotated[str, Field(min_length=1, max_length=200)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_HUGE = 2**63


class StreamOptions(BaseModel):
    """What a stream tells beside the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    include_usage: bool | None = None


class Parameters(BaseModel):
    """What may be asked for; None is the same as leaving it out."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=-1, le=1_000_000)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-_HUGE, lt=_HUGE)
    stop: _Stop | list[_Stop] | None = Field(default=None, max_length=16)
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], _Bias] | None = Field(default=None, max_length=300)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=1000)


#: Taken, and not passed on: the server has nothing to do with them.
_OURS = {"max_completion_tokens", "n", "user"}


def read_parameters(told: dict[str, Any], config: ServeConfig) -> dict[str, Any]:
    """What is passed on of the parameters in `told`; the number of tokens is always said.

    Raises:
        Refused: a parameter is unknown, of another type or beyond its limits; the sentence names it.
    """
    unknown = sorted(told.keys() - Parameters.model_fields.keys())
    if unknown:
        raise Refused(
            400,
            f"parameter {unknown[0][:60]!r} is not taken; leave it out (taken: {', '.join(Parameters.model_fields)})",
        )
    try:
        read = Parameters.model_validate(told)
    except ValidationError as error:
        raise Refused(400, f"parameter {describe(error, Parameters, told)}") from error
    named = [value for value in (read.max_completion_tokens, read.max_tokens) if value is not None]
    tokens = named[0] if named else min(config.default_tokens, config.max_tokens)
    if tokens > config.max_tokens:
        name = "max_tokens" if read.max_completion_tokens is None else "max_completion_tokens"
        raise Refused(
            400, f"parameter {name} = {tokens}: an answer may have {config.max_tokens} tokens here; ask for less"
        )
    passed_on = read.model_dump(exclude_none=True, exclude=_OURS)
    return passed_on | {"max_tokens": tokens}


def whole_number(text: str) -> int | float:
    """An integer of JSON; one that no parameter can be stays too large without being read."""
    return int(text) if len(text) <= 20 else math.inf


_HEAD = re.compile(r"data:image/[A-Za-z0-9.+-]{1,40};base64")
_DETAILS = ("auto", "low", "high")


@dataclass(frozen=True)
class ChatRequest:
    """What a body asks. `pictures` are their measures, `data` their bytes, in the same order.

    `body` is what is passed on, without the model's name; `is_stream` says in which form the answer is wanted.
    """

    model: str
    history: tuple[Turn, ...]
    prompt: str
    pictures: tuple[LoggedPicture, ...]
    data: tuple[bytes, ...]
    body: dict[str, Any] = field(default_factory=dict)
    is_stream: bool = False


def read_body(body: bytes, config: ServeConfig, model: str) -> ChatRequest:
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
    return ChatRequest(model, history, prompt, pictures, tuple(data), passed_on, bool(parameters.get("stream")))


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


def _measured_all(data: list[bytes], config: ServeConfig) -> tuple[LoggedPicture, ...]:
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


def _measured(data: bytes) -> LoggedPicture:
    try:
        return measure_picture(open_embedded(data, "that was sent", "the request"), data)
    except InputError as error:
        raise Refused(400, "a picture is truncated or damaged") from error
