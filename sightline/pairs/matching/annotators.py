"""Who explains, checks and invents pairs of records: a language model that is told a text and replies with one.

Behind an endpoint, or a model directory on this machine. The prompts are `prompts`; what becomes of replies is each
step's affair.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from sightline.config import Config
from sightline.endpoint import Ask, Endpoint, EndpointConfig
from sightline.models.loading import load_vlm
from sightline.models.placing import place_of
from sightline.models.prompts import Prefix, Request, Sampling
from sightline.models.sampler import generate

NO_REPLY = "the annotator gave no reply"


@dataclass(frozen=True)
class Told:
    """A text to reply to; `seed` decides the reply where it is sampled."""

    text: str
    seed: int = 0


class Annotator(Protocol):
    """Replies to texts, in order; None stands for a call that failed or a reply that was cut off."""

    def reply(self, told: Sequence[Told]) -> list[str | None]: ...


class EndpointAnnotatorConfig(Config):
    """A model on a server of the OpenAI kind; its replies are kept, so that a run that was stopped goes on."""

    name: Literal["endpoint"]
    server: EndpointConfig

    def open(self) -> Annotator:
        """The annotator."""
        return _Server(Endpoint(self.server))

    @property
    def inputs(self) -> dict[str, Path]:
        """The directories that it reads."""
        return {}


class ModelAnnotatorConfig(Config):
    """A model directory, with an adapter where one is named."""

    name: Literal["model"]
    model: Path
    adapter: Path | None = None
    temperature: float = Field(default=0.0, ge=0)
    max_new_tokens: int = Field(default=512, gt=0, description="a longer reply counts as failed")
    batch_size: int = Field(default=8, gt=0)

    def open(self) -> Annotator:
        """The annotator."""
        return _Local(self)

    @property
    def inputs(self) -> dict[str, Path]:
        """The directories that it reads."""
        return {"annotator": self.model} | ({} if self.adapter is None else {"annotator_adapter": self.adapter})


AnnotatorConfig = Annotated[EndpointAnnotatorConfig | ModelAnnotatorConfig, Field(discriminator="name")]


class _Server:
    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def reply(self, told: Sequence[Told]) -> list[str | None]:
        return [reply.text for reply in self._endpoint.ask([Ask(one.text, seed=one.seed) for one in told])]


class _Local:
    def __init__(self, config: ModelAnnotatorConfig) -> None:
        self._config = config
        self._vlm = load_vlm(config.model, adapter=config.adapter, device=place_of("auto"))

    def reply(self, told: Sequence[Told]) -> list[str | None]:
        config = self._config
        made = generate(
            self._vlm,
            [Request(Prefix((), one.text), seed=one.seed) for one in told],
            Sampling(config.max_new_tokens, config.temperature),
            batch_size=config.batch_size,
        )
        return [one.text.strip() if one.finished else None for one in made]
