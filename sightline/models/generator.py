"""The protocol of whoever continues prompts, and the open model as one of them.

Builders that need whole answers, evaluation and online training ask a generator. `generators.server` is the other one.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sightline.models.requests import FailedGeneration, GenerateRequest, Generation, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM


@runtime_checkable
class Generator(Protocol):
    """Continues prompts."""

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | FailedGeneration]:
        """One continuation per request, in order. Use several seeds for several answers to one prompt."""
        ...


class ModelGenerator:
    """`models.sampler.generate` on an open model with its present weights, `batch_size` rows at a time."""

    def __init__(self, vlm: VLM, *, batch_size: int, autocast: bool) -> None:
        self._vlm, self._batch_size, self._autocast = vlm, batch_size, autocast

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | FailedGeneration]:
        """One continuation per request, in order; none fails."""
        return [*generate(self._vlm, requests, sampling, batch_size=self._batch_size, autocast=self._autocast)]
