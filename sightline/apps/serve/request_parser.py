"""Parse the body of a chat completion into history, prompt and pictures, or reject it with a message.

Bodies are untrusted. Pictures are accepted as data URLs only: fetching addresses for clients would expose the server's
network and files. The forwarded body is rebuilt from the parsed fields.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Annotated, Any, Literal

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sightline.apps.serve.config import ServeConfig
from sightline.config.problems import brief, describe
from sightline.data.images import DAMAGE, FORMATS, open_embedded
from sightline.data.request_log import measure_picture
from sightline.data.turns import TIERS, merge_system_turns, to_turns
from sightline.errors import InputError
from sightline.records.ratings import LoggedPicture
from sightline.records.rows import IMAGE, Turn


class RequestRejected(Exception):
    """A rejected request: HTTP status and message."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


_Stop = Annotated[str, Field(min_length=1, max_length=200)]
_Bias = Annotated[float, Field(ge=-100, le=100)]
_HUGE = 2**63


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    include_usage: bool | None = None


class Parameters(BaseModel):
    """The accepted parameters; None is the same as leaving one out."""

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


#: Accepted but not forwarded.
_OURS = {"max_completion_tokens", "n", "user"}


def read_parameters(values: dict[str, Any], config: ServeConfig) -> dict[str, Any]:
    """Validate the parameters in `values`; returns those to forward, always with `max_tokens`.

    Raises:
        RequestRejected: a parameter is unknown, of the wrong type or out of range; the message names it.
    """
    unknown = sorted(values.keys() - Parameters.model_fields.keys())
    if unknown:
        raise RequestRejected(
            400,
            f"parameter {unknown[0][:60]!r} is not supported; leave it out, or use one of: "
            + ", ".join(Parameters.model_fields),
        )
    try:
        read = Parameters.model_validate(values)
    except ValidationError as error:
        raise RequestRejected(400, f"parameter {describe(error, Parameters, values)}") from error
    named = [value for value in (read.max_completion_tokens, read.max_tokens) if value is not None]
    tokens = named[0] if named else min(config.default_tokens, config.max_tokens)
    if tokens > config.max_tokens:
        name = "max_tokens" if read.max_completion_tokens is None else "max_completion_tokens"
        raise RequestRejected(
            400, f"parameter {name} = {tokens}: the limit is {config.max_tokens} tokens; request fewer"
        )
    passed_on = read.model_dump(exclude_none=True, exclude=_OURS)
    return passed_on | {"max_tokens": tokens}


def whole_number(text: str) -> int | float:
    """Parse a JSON integer; one too long for any parameter becomes infinity, unparsed."""
    return int(text) if len(text) <= 20 else math.inf


_HEAD = re.compile(r"data:image/[A-Za-z0-9.+-]{1,40};base64")
_DETAILS = ("auto", "low", "high")


@dataclass(frozen=True)
class ChatRequest:
    """A parsed request. `pictures` are measurements and `data` the bytes of the pictures, in the same order.

    `body` is the body to forward, without the model's name; `is_stream` says whether the client wants a stream.
    """

    model: str
    history: tuple[Turn, ...]
    prompt: str
    pictures: tuple[LoggedPicture, ...]
    data: tuple[bytes, ...]
    body: dict[str, Any] = field(default_factory=dict)
    is_stream: bool = False


def read_body(body: bytes, config: ServeConfig, model: str, *, merges_system: bool = False) -> ChatRequest:
    """Parse a chat completion's body for `model`; `merges_system` moves system turns of the forwarded body.

    Raises:
        RequestRejected: the body is invalid, names another model, has an unsupported parameter or too many pictures.
    """
    try:
        payload = json.loads(body.decode("utf-8"), parse_int=whole_number)
        if not isinstance(payload, dict):
            raise TypeError("it must be an object")
        json.dumps(payload, ensure_ascii=False).encode()  # fails on lone surrogates
        messages = payload.pop("messages")
        requested = payload.pop("model", None) or model
        if not isinstance(messages, list) or not isinstance(requested, str):
            raise TypeError("messages must be a list, and model a string")
        data: list[bytes] = []
        turns = [(_role(message), _entries(message["content"], data)) for message in messages]
        history, prompt = to_turns(turns)
        forwarded = [_plain(message) for message in messages]
        forwarded = merged_messages(forwarded) if merges_system else forwarded
    except UnicodeError as error:
        raise RequestRejected(400, "the body must be UTF-8 without lone surrogates") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestRejected(400, f"the body is not a chat completion that this server accepts ({reason})") from error
    if requested != model:
        raise RequestRejected(404, f"model {requested[:100]!r} is not served here; name {model!r}, or leave it out")
    parameters = read_parameters(payload, config)
    pictures = _measure_pictures(data, config)
    passed_on = {**parameters, "messages": forwarded}
    return ChatRequest(model, history, prompt, pictures, tuple(data), passed_on, bool(parameters.get("stream")))


def _role(message: dict[str, Any]) -> str:
    role = message["role"]
    if not isinstance(role, str):
        raise TypeError("a role must be a string")
    if role in TIERS:  # roles of our rows, which a template would render as an answer
        raise ValueError(f"a message has the role {role!r}; use system, user or assistant")
    more = sorted(key for key, value in message.items() if value and key not in ("role", "content", "name"))
    if more:
        raise ValueError(f"a message has {more[0][:60]!r}; only role, content and name are supported")
    return {"developer": "system"}.get(role, role)


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """The message to forward: the parsed fields and nothing else."""
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


def merged_messages(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a chat completion with the texts of system turns moved into the first user turn.

    Raises:
        ValueError: a system turn has a picture.
    """
    roles = ["system" if message["role"] in ("system", "developer") else message["role"] for message in messages]
    if "system" not in roles:
        return list(messages)
    turns = [(role, _unpacked(message["content"])) for role, message in zip(roles, messages, strict=True)]
    if any(role == "system" and not isinstance(entry, str) for role, entries in turns for entry in entries):
        raise ValueError("the model has no system turns, so their pictures must be in a user turn")
    kept = [message for role, message in zip(roles, messages, strict=True) if role != "system"]
    return [
        {**message, "content": _packed(entries)}
        for message, (_, entries) in zip(kept, merge_system_turns(turns), strict=True)
    ]


def _unpacked(content: str | list[dict[str, Any]]) -> list[str | dict[str, Any]]:
    if isinstance(content, str):
        return [content]
    return [part["text"] if part["type"] == "text" else part for part in content]


def _packed(entries: Sequence[str | dict[str, Any]]) -> Any:
    if len(entries) == 1 and isinstance(entries[0], str):
        return entries[0]
    return [{"type": "text", "text": entry} if isinstance(entry, str) else entry for entry in entries]


def _entries(content: Any, data: list[bytes]) -> list[str | None]:
    """The texts of a message, None for each picture; the pictures' bytes are appended to `data`."""
    if isinstance(content, str):
        return [_text(content)]
    if not isinstance(content, list):
        raise TypeError("content must be a string or a list of parts")
    entries: list[str | None] = []
    for part in content:
        if part["type"] == "text" and isinstance(part["text"], str):
            entries.append(_text(part["text"]))
        elif part["type"] == "image_url":
            entries.append(None)
            data.append(_decode_picture(part["image_url"]["url"]))
        else:
            raise ValueError(f"a part of type {part['type']!r} is neither text nor image_url")
    return entries


def _text(text: str) -> str:
    if IMAGE in text:
        raise RequestRejected(400, f"a text must not contain {IMAGE}; send pictures as parts of type image_url")
    return text


def _decode_picture(url: Any) -> bytes:
    if not isinstance(url, str) or not url.startswith("data:"):
        raise RequestRejected(400, "a picture must be sent as a data URL; addresses are not fetched")
    head, comma, text = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise RequestRejected(400, "a picture's data URL must be base64")
    if not _HEAD.fullmatch(head):
        raise RequestRejected(
            400, f"a picture's data URL must begin with data:image/KIND;base64, not with {head[:60]!r}"
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestRejected(400, "a picture's data URL is not base64") from error


def _measure_pictures(data: list[bytes], config: ServeConfig) -> tuple[LoggedPicture, ...]:
    """Measure a call's pictures. All headers are read before the first picture is decoded."""
    if len(data) > config.max_images:
        raise RequestRejected(413, f"the call has {len(data)} pictures; the limit is {config.max_images}")
    pixels = [_pixels(one, config.max_pixels) for one in data]
    largest = max(pixels, default=0)
    if largest > config.max_pixels:
        raise RequestRejected(413, f"a picture has {largest} pixels; the limit is {config.max_pixels}, send it smaller")
    if sum(pixels) > config.max_call_pixels:
        raise RequestRejected(
            413,
            f"the pictures have {sum(pixels)} pixels together; the limit is {config.max_call_pixels}, send fewer",
        )
    return tuple(_measure_picture(one) for one in data)


def _pixels(data: bytes, allowed: int) -> int:
    """The number of pixels by the header; Pillow refuses more than twice `MAX_IMAGE_PIXELS` whatever is `allowed`."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:  # reads the header only
            return image.width * image.height
    except Image.DecompressionBombError as error:
        limit = min(allowed, 2 * (Image.MAX_IMAGE_PIXELS or allowed))
        found = re.search(r"(\d+) pixels", str(error))
        count = found[1] if found is not None else f"more than {limit}"
        raise RequestRejected(
            413, f"a picture has {count} pixels, as a decompression bomb has; the limit is {limit}, send it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise RequestRejected(400, f"a picture is not an image ({', '.join(FORMATS)} are supported)") from error
    except DAMAGE as error:
        if "MAX_TEXT" in str(error):  # the only name that Pillow gives this error
            raise RequestRejected(
                413,
                f"a PNG picture has compressed text of more than {PngImagePlugin.MAX_TEXT_CHUNK} bytes, as a "
                "decompression bomb has; send it without that text",
            ) from error
        raise RequestRejected(400, f"a picture is damaged ({brief(error)})") from error


def _measure_picture(data: bytes) -> LoggedPicture:
    try:
        return measure_picture(open_embedded(data, "that was sent", "the request"), data)
    except InputError as error:
        raise RequestRejected(400, "a picture is truncated or damaged") from error
