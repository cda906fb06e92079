"""The writer behind an endpoint: a language model that rewrites answers as the tasks' prompts say."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig, Reply
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.encoding import fits
from sightline.models.loading import model_hash
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records import hash_json
from sightline.registry import config_union
from sightline.writers.prompts import (
    CUT_OFF,
    NO_PICTURE,
    NO_TEXT,
    PROMPTS,
    lacks_picture,
    read_reply,
    task_images,
    task_text,
)
from sightline.writers.registry import WRITERS
from sightline.writers.writer import Writer, WriterTask, Written


class EndpointWriterConfig(Config):
    """A model on a server of the OpenAI kind. At temperature 0, the default, all seeds give one text."""

    name: Literal["endpoint"] = Field(description="selects this writer")
    server: EndpointConfig = Field(description="the server of the writer")

    def open(self, tools: RunContext) -> Writer:
        """The writer."""
        return _Endpoint(self.server)


class _Endpoint:
    def __init__(self, server: EndpointConfig) -> None:
        self._endpoint = Endpoint(server)
        self.identity = hash_json(["endpoint writer", PROMPTS, server.identity])

    def write(self, drafts: Sequence[WriterTask]) -> list[Written]:
        able = [draft for draft in drafts if not lacks_picture(draft)]
        replies = iter(self._endpoint.ask([Ask(task_text(one), task_images(one), one.seed) for one in able]))
        return [Written(None, note=NO_PICTURE) if lacks_picture(one) else _written(next(replies)) for one in drafts]


def _written(reply: Reply) -> Written:
    if reply.text is None:
        return Written(None, reply.tokens, reply.note)
    text = read_reply(reply.text)
    return Written(text, reply.tokens, "" if text else NO_TEXT)


class PolicyWriterConfig(Config):
    """The model that is to be aligned rewrites its own or others' answers; no one else is asked."""

    name: Literal["policy"] = Field(description="selects this writer")
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy: all seeds give one text")
    top_p: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="nucleus sampling: sample from the likeliest tokens whose probabilities sum to this; 1: from all "
        "tokens",
    )
    max_new_tokens: int = Field(default=256, gt=0, description="limit of one text; a longer one counts as failed")
    batch_size: int = Field(default=64, gt=0, description="rows generated together")
    autocast: bool = Field(default=False, description="bfloat16 autocast while generating")

    def open(self, tools: RunContext) -> Writer:
        """The writer."""
        return _Policy(self, tools.vlm)


class _Policy:
    def __init__(self, config: PolicyWriterConfig, vlm: VLM) -> None:
        self._config, self._vlm = config, vlm
        self._sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
        deciding = config.model_dump(mode="json", include={"temperature", "top_p", "max_new_tokens", "autocast"})
        self.identity = hash_json(["policy writer", PROMPTS, model_hash(vlm), deciding])

    def write(self, drafts: Sequence[WriterTask]) -> list[Written]:
        requests = [_request(draft) for draft in drafts]
        refusals = [self._refusal(*both) for both in zip(drafts, requests, strict=True)]
        able = [request for request, refusal in zip(requests, refusals, strict=True) if not refusal]
        batch_size, autocast = self._config.batch_size, self._config.autocast
        generated = iter(generate(self._vlm, able, self._sampling, batch_size=batch_size, autocast=autocast))
        return [Written(None, note=refusal) if refusal else _written_policy(next(generated)) for refusal in refusals]

    def _refusal(self, draft: WriterTask, request: GenerateRequest) -> str:
        if lacks_picture(draft):
            return NO_PICTURE
        return "" if fits(self._vlm, request.prefix, "", self._config.max_new_tokens) else TOO_LONG


def _request(draft: WriterTask) -> GenerateRequest:
    return GenerateRequest(
        Prefix(task_images(draft), task_text(draft), media=draft.about.prefix.media if task_images(draft) else ()),
        seed=draft.seed,
    )


def _written_policy(generated: Generation) -> Written:
    if not generated.finished:
        return Written(None, generated.tokens, CUT_OFF)
    text = read_reply(generated.text)
    return Written(text, generated.tokens, "" if text else NO_TEXT)


if TYPE_CHECKING:

    class WriterConfig(Protocol):
        """What the config of every writer has."""

        @property
        def name(self) -> str: ...

        def open(self, context: RunContext, /) -> Writer:
            """The writer."""
            ...

else:
    _OTHERS = [entry.load() for entry in WRITERS.known().values() if not str(entry.target).startswith(f"{__name__}:")]
    WriterConfig = config_union([*_OTHERS, EndpointWriterConfig, PolicyWriterConfig])
