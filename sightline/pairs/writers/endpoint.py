"""The writer behind an endpoint: a language model that rewrites answers as the tasks' prompts say."""

from collections.abc import Sequence
from typing import Literal

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig, Reply
from sightline.pairs.builder import Tools
from sightline.pairs.writers.base import Draft, Writer, Written
from sightline.pairs.writers.prompts import PROMPTS, read_reply
from sightline.pairs.writers.telling import NO_PICTURE, NO_TEXT, lacks_picture, pictures_of, task_text
from sightline.records import hash_json


class EndpointWriterConfig(Config):
    """A model on a server of the OpenAI kind. At temperature 0, the default, all seeds give one text."""

    name: Literal["endpoint"]
    server: EndpointConfig

    def open(self, tools: Tools) -> Writer:
        """The writer."""
        return _Endpoint(self.server)


class _Endpoint:
    def __init__(self, server: EndpointConfig) -> None:
        self._endpoint = Endpoint(server)
        self.identity = hash_json(["endpoint writer", PROMPTS, server.identity])

    def write(self, drafts: Sequence[Draft]) -> list[Written]:
        able = [draft for draft in drafts if not lacks_picture(draft)]
        replies = iter(self._endpoint.ask([Ask(task_text(one), pictures_of(one), one.seed) for one in able]))
        return [Written(None, note=NO_PICTURE) if lacks_picture(one) else _written(next(replies)) for one in drafts]


def _written(reply: Reply) -> Written:
    if reply.text is None:
        return Written(None, reply.tokens, reply.note)
    text = read_reply(reply.text)
    return Written(text, reply.tokens, "" if text else NO_TEXT)
