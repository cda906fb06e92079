"""Requests and replies of a server, and the two routes by which vLLM loads and unloads a LoRA adapter at run time.

For adapters, start the server with `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve MODEL --enable-lora`; it must be
able to read the adapter's directory. A request for the adapter's name as the model then uses base model and adapter.
"""

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

#: Larger images are sent as JPEG of quality 95 instead of lossless PNG: photographs would take megabytes a call.
_PNG_BYTES = 512 * 1024
_SEEDS = 2**31  # llama.cpp and others keep seeds in 32 bits


@dataclass(frozen=True)
class Ask:
    """A request of one user turn, pictures before the text. `seed` distinguishes repeated samples of the same prompt.

    With `turns`, the earlier turns, pictures are inserted at `<image>` (`data.turns`); without (None), the text is sent
    unchanged. `options` are further call arguments by name (`top_p`, `stop`). With `aloud` the reply is the whole text,
    white space and reasoning included.
    """

    text: str
    images: tuple[Path, ...] = ()
    seed: int = 0
    turns: tuple[Turn, ...] | None = None
    options: tuple[tuple[str, Any], ...] = ()
    aloud: bool = False

    def key(self, config: EndpointConfig) -> str:
        """A hash of everything that determines the answer, images by their bytes."""
        images = [hash_file(image) for image in self.images]
        # Fields added later are omitted at their defaults, so that older answers keep their keys.
        turns = None if self.turns is None else [turn.model_dump() for turn in self.turns]
        rare = turns is not None or self.options or self.aloud
        rest = [turns, dict(self.options), self.aloud] if rare else []
        return hash_json(["chat", config.identity, self.text, images, self.seed, *rest])

    def body(self, config: EndpointConfig) -> dict[str, Any]:
        """The arguments of the call.

        Raises:
            InputError: an image cannot be opened.
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
    """The content of a message, a plain string if it has no pictures: some text-only servers accept nothing else."""
    if None not in entries:
        return "".join(entry for entry in entries if entry is not None)
    return [
        {"type": "image_url", "image_url": {"url": next(urls)}} if entry is None else {"type": "text", "text": entry}
        for entry in entries
    ]


@dataclass(frozen=True)
class Reply:
    """The model's reply. `text` is None if the call failed or the reply was cut off; `note` is then the reason.

    `begun` is the beginning of a reply that the token limit cut off. Tokens are counted by the server; `kept` is True
    if the reply came from the cache. `refused` is True for a failed call that would fail again.
    """

    text: str | None
    tokens: int = 0
    note: str = ""
    begun: str | None = None
    prompt_tokens: int = 0
    kept: bool = field(default=False, compare=False)
    refused: bool = False


@lru_cache(maxsize=64)  # one picture has several questions
def _data_url(path: Path, content: str, max_side: int) -> str:  # noqa: ARG001 - content is the file's hash, a cache key
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
    "start it with run-time adapter loading (vLLM: VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, --enable-lora, "
    "--max-lora-rank of at least lora.rank)"
)


def load_adapter(config: EndpointConfig, name: str, directory: Path) -> None:
    """Load the PEFT adapter in `directory` into the server as `name`, replacing an adapter of that name.

    Raises:
        InputError: the server is unreachable or refuses.
    """
    unload_adapter(config, name)  # a resumed run finds its earlier adapter, perhaps from another directory
    fault = _post(config, "load_lora_adapter", {"lora_name": name, "lora_path": str(directory.absolute())})
    if fault is not None:
        raise InputError(f"the server at {config.base_url} cannot load an adapter ({fault}); {_REMEDY}")


def unload_adapter(config: EndpointConfig, name: str) -> None:
    """Unload the adapter from the server if it is loaded.

    Raises:
        InputError: the server is unreachable.
    """
    _post(config, "unload_lora_adapter", {"lora_name": name})  # a refusal means that no such adapter is loaded


def _post(config: EndpointConfig, route: str, body: dict[str, str]) -> str | None:
    """Post to the server; None on success, else its error message."""
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
