"""The writer that is the policy itself: it is told the tasks' prompts and sees the picture where one is needed."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from sightline.config import Config
from sightline.models.loading import content_of
from sightline.models.prompts import Generation, Prefix, Request, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.pairs.answers import fits
from sightline.pairs.builder import TOO_LONG, Tools
from sightline.pairs.writers.base import Draft, Writer, Written
from sightline.pairs.writers.prompts import PROMPTS, read_reply
from sightline.pairs.writers.telling import CUT_OFF, NO_PICTURE, NO_TEXT, lacks_picture, pictures_of, task_text
from sightline.records import hash_json


class PolicyWriterConfig(Config):
    """The model that is to be aligned rewrites its own or others' answers; no one else is asked."""

    name: Literal["policy"]
    temperature: float = Field(default=1.0, ge=0, description="0 is greedy: all seeds give one text")
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_new_tokens: int = Field(default=256, gt=0, description="limit of one text; a longer one counts as failed")
    batch_size: int = Field(default=64, gt=0, description="rows generated together")
    autocast: bool = Field(default=False, description="bfloat16 autocast while generating")

    def open(self, tools: Tools) -> Writer:
        """The writer."""
        return _Policy(self, tools.vlm)


class _Policy:
    def __init__(self, config: PolicyWriterConfig, vlm: VLM) -> None:
        self._config, self._vlm = config, vlm
        self._sampling = Sampling(config.max_new_tokens, config.temperature, config.top_p)
        deciding = config.model_dump(mode="json", include={"temperature", "top_p", "max_new_tokens", "autocast"})
        self.identity = hash_json(["policy writer", PROMPTS, content_of(vlm), deciding])

    def write(self, drafts: Sequence[Draft]) -> list[Written]:
        requests = [_request(draft) for draft in drafts]
        refusals = [self._refusal(*both) for both in zip(drafts, requests, strict=True)]
        able = [request for request, refusal in zip(requests, refusals, strict=True) if not refusal]
        batch_size, autocast = self._config.batch_size, self._config.autocast
        said = iter(generate(self._vlm, able, self._sampling, batch_size=batch_size, autocast=autocast))
        return [Written(None, note=refusal) if refusal else _written(next(said)) for refusal in refusals]

    def _refusal(self, draft: Draft, request: Request) -> str:
        if lacks_picture(draft):
            return NO_PICTURE
        return "" if fits(self._vlm, request.prefix, "", self._config.max_new_tokens) else TOO_LONG


def _request(draft: Draft) -> Request:
    return Request(
        Prefix(pictures_of(draft), task_text(draft), media=draft.about.prefix.media if pictures_of(draft) else ()),
        seed=draft.seed,
    )


def _written(said: Generation) -> Written:
    if not said.finished:
        return Written(None, said.tokens, CUT_OFF)
    text = read_reply(said.text)
    return Written(text, said.tokens, "" if text else NO_TEXT)
