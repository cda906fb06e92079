"""A model with its processor and its family's adapter: what the rest of this room works on."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel

from sightline.models.families import FAMILIES, ModelFamily
from sightline.models.tensor_cache import Recent, TensorCache

LLAVA = FAMILIES["llava"]


@dataclass(frozen=True)
class VLM:
    """A model with its processor. `path` is the hub id or directory it was opened from; `dtype` that of its weights.

    `cache` keeps image features; without one they are computed anew in every pass. `prefixes` keeps in memory what
    was encoded lately.
    """

    model: Any  # PreTrainedModel or PeftModel, which are alike to callers and not to the type checker
    processor: Any  # ProcessorMixin, or the tokenizer of a model without eyes
    path: str
    device: torch.device
    dtype: torch.dtype
    family: ModelFamily = LLAVA
    proved: bool = True  # False: no proof for this family, so rows go the plain way
    cache: TensorCache | None = None
    prefixes: Recent[Any] = field(default_factory=Recent, compare=False, repr=False)

    @property
    def base(self) -> Any:
        """The Transformers model itself, with adapter layers in place where there are any."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer inside the processor, which is the processor itself where the model has no eyes."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def sees(self) -> bool:
        """Whether the model takes pictures."""
        return hasattr(self.processor, "tokenizer")

    @property
    def image_token_id(self) -> int:
        """The id that stands where an image feature goes; -1 where the model takes no pictures."""
        return int(self.base.config.image_token_id) if self.sees else -1

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a turn: those of the generation config and the tokenizer's own."""
        configured = self.base.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(int(i) for i in (*ids, self.tokenizer.eos_token_id) if i is not None)

    @property
    def max_tokens(self) -> int:
        """The longest sequence, images included, that the positions of the language model cover."""
        return int(self.base.config.get_text_config().max_position_embeddings)


@contextlib.contextmanager
def evaluating(vlm: VLM) -> Iterator[None]:
    """No dropout and no gradients inside; the mode of training is put back after."""
    training = vlm.model.training
    if training:  # to switch a model costs a walk over its modules
        vlm.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            vlm.model.train()


def hit_rate_of(vlm: VLM) -> dict[str, float]:
    """The share of look-ups that the cache answered, for a manifest's numbers; empty where none was asked."""
    rate = None if vlm.cache is None else vlm.cache.hit_rate
    return {} if rate is None else {"cache_hit_rate": rate}
