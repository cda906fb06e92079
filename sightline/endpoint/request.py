"""What is asked of a server and what comes back: the body of a call, its content key, and a picture as a data URL."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from sightline.data.images import open_image
from sightline.data.turns import Message, messages
from sightline.endpoint.config import EndpointConfig
from sightline.errors import InputError
from sightline.records import hash_file, hash_json
from sightline.records.rows import Turn

if TYPE_CHECKING:
    import openai

#: Above this a PNG, which loses nothing, gives way to a JPEG of quality 95: photographs would take megabytes a call.
_PNG_BYTES = 512 * 1024
_SEEDS = 2**31  # llama.cpp and others keep seeds in 32 bits


@dataclass(frozen=True)
class Ask:
    """One user turn, the pictures before the text. `seed` tells apart what is asked several times.

    With `turns`, what was said before, the pictures stand where the texts say `<image>` (`data.turns`); without (None),
    the text is sent as it is. `options` are further arguments of the call by name (`top_p`, `stop`). With `aloud` the
    reply is all that was written, white space and what was thought aloud included.
    """

    text: str
    images: tuple[Path, ...] = ()
    seed: int = 0
    turns: tuple[Turn, ...] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    aloud: bool = False

    def key(self, config: EndpointConfig) -> str:
        """A hash of all that decides the answer, images by the bytes of their files."""
        images = [hash_file(image) for image in self.images]
        # What is rarely there is left out where it is not, so that older answers keep their keys.
        turns = None if self.turns is None else [turn.model_dump() for turn in self.turns]
        rare = turns is not None or self.options or self.aloud
        rest = [turns, dict(self.options), self.aloud] if rare else []
        return hash_json(["chat", config.identity, self.text, images, self.seed, *rest])

    def body(self, config: EndpointConfig) -> dict[str, Any]:
        """The call's arguments.

        Raises:
            InputError: an image that cannot be opened.
        """
        urls = (_data_url(image, hash_file(image), config.max_side) for image in self.images)
        conversation: list[Message] = [("user", [*(None for _ in self.images), self.text])]
        if self.turns is not None:
            conversation = messages(self.turns, self.text, len(self.images), f"prompt {self.text[:60]!r}")
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": role, "content": _content(entries, urls)} for role, entries in conversation],
            config.limit_name: config.max_tokens,
            **dict(self.options),
        }
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if config.seed is not None:
            body["seed"] = (config.seed + self.seed) % _SEEDS
        return body


def _content(entries: list[str | None], urls: Iterator[str]) -> str | list[dict[str, Any]]:
    """A message's content; a plain string without pictures: some servers of language models take nothing else."""
    if None not in entries:
        return "".join(entry for entry in entries if entry is not None)
    return [
        {"type": "image_url", "image_url": {"url": next(urls)}} if entry is None else {"type": "text", "text": entry}
        for entry in entries
    ]


@dataclass(frozen=True)
class Reply:
    """What the model said; None where the call failed or the reply was cut off, and `note` says why.

    `begun` is what there is of a reply that the token limit cut off. Tokens are as the server counts them; `kept` is
    True where it was on disk, so that it cost nothing now.
    """

    text: str | None
    tokens: int = 0
    note: str = ""
    begun: str | None = None
    prompt_tokens: int = 0
    kept: bool = field(default=False, compare=False)


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


_REMEDY = (
    "start it with adapters that can be changed (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora, "
    "--max-lora-rank of at least lora.rank)"
)


def load_adapter(config: EndpointConfig, name: str, directory: Path) -> None:
    """Have the server load the adapter (PEFT) in `directory` under `name`; one that has this name already is replaced.

    Raises:
        InputError: nobody is there, or the server refuses.
    """
    unload_adapter(config, name)  # a run that goes on after a kill finds its own, perhaps of another directory
    fault = _post(config, "load_lora_adapter", {"lora_name": name, "lora_path": str(directory.absolute())})
    if fault is not None:
        raise InputError(f"the server at {config.base_url} loads no adapter ({fault}); {_REMEDY}")


def unload_adapter(config: EndpointConfig, name: str) -> None:
    """Have the server forget the adapter, if it has it.

    Raises:
        InputError: nobody is there.
    """
    _post(config, "unload_lora_adapter", {"lora_name": name})  # refused: there is none, or none can be loaded either


def _post(config: EndpointConfig, route: str, body: dict[str, str]) -> str | None:
    """None where it went well, else what the server said against it."""
    import openai

    with openai.OpenAI(base_url=config.base_url, api_key=config.key(), timeout=config.timeout, max_retries=2) as client:
        try:
            client.post(f"/{route}", body=body, cast_to=str)
        except openai.APIStatusError as error:
            return f"status {error.status_code}: {_server_message(error)}"
        except openai.APIConnectionError as error:
            raise InputError(
                f"no server answers at {config.base_url} ({error.__cause__ or error}); start it, or correct base_url"
            ) from error
    return None


def _server_message(error: "openai.APIStatusError") -> str:
    message = error.body.get("message") if isinstance(error.body, dict) else None
    return " ".join(str(message or error.response.text).split())[:200]
