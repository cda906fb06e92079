"""The `VLM` object: a model with its processor and its family. `loading` opens one, the rest of this room uses it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from torch import nn

from sightline.models.families import FAMILIES, ModelFamily
from sightline.models.prefetch import Prefetch
from sightline.models.spec import ModelSpec
from sightline.models.tensor_cache import ByteLRU, TensorCache
from sightline.models.ways.base import Way

LLAVA = FAMILIES["llava"]
#: How a model was opened that was not opened by `opening.open_model`.
UNNAMED = ModelSpec(name="unnamed")


@dataclass(frozen=True)
class VLM:
    """A model with its processor, as `load` opens it. `path` is where it was loaded from, `dtype` that of its weights.

    `cache` keeps image features; without one they are recomputed in every pass. `spec` is how the model was opened.
    `prefixes` keeps recently encoded prefixes in memory, `features` recently used image features; `prefetch` encodes
    prefixes ahead in threads.
    """

    model: Any  # PreTrainedModel or PeftModel: callers treat them alike, the type checker does not
    processor: Any  # ProcessorMixin, or the tokenizer of a text-only model
    path: str
    device: torch.device
    dtype: torch.dtype
    way: Way  # how log-probs, states and samples are computed
    family: ModelFamily = LLAVA
    proof: Any = None  # `models.proof.Proof`: how its way was proved; None if it was not
    cache: TensorCache | None = None
    spec: ModelSpec = UNNAMED
    max_pixels: int | None = None  # larger pictures are scaled down before the processor sees them
    prefixes: ByteLRU[Any] = field(default_factory=ByteLRU, compare=False, repr=False)
    features: ByteLRU[Any] = field(default_factory=ByteLRU, compare=False, repr=False)
    prefetch: Prefetch[Any] = field(default_factory=Prefetch, compare=False, repr=False)

    @property
    def base(self) -> Any:
        """The Transformers model, including adapter layers if any."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer; for a text-only model the processor is the tokenizer."""
        return getattr(self.processor, "tokenizer", self.processor)

    @property
    def is_multimodal(self) -> bool:
        """Whether the model takes images."""
        return hasattr(self.processor, "tokenizer")

    @property
    def image_token_id(self) -> int:
        """The id of an image token; -1 for a text-only model."""
        return image_id(self.base.config, self.processor) if self.is_multimodal else -1

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a turn: those of the generation config and the tokenizer's EOS."""
        configured = self.base.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return frozenset(int(i) for i in (*ids, self.tokenizer.eos_token_id) if i is not None)

    @cached_property
    def opened(self) -> tuple[tuple[str, Any], ...]:
        """What was opened and how: the settings of `spec` that are not defaults, device and dtype left out.

        For ways other than packed rows also the way, how it hides image tokens, and the numbers of its proof.
        """
        plain = self.spec.model_dump(mode="json", exclude={"device", "dtype"})
        if self.way.name != "packed":
            evidence = {} if self.proof is None else self.proof.numbers()
            plain = {**plain, "way": self.way.name, "hiding": self.way.hiding, **evidence}
        return tuple(plain.items())

    @property
    def max_tokens(self) -> int:
        """The maximum sequence length of the language model, image tokens included."""
        configured = getattr(self.base.config.get_text_config(), "max_position_embeddings", None)
        return int(configured or self.tokenizer.model_max_length)


def image_id(config: Any, processor: Any) -> int:
    """The id of an image token, by the names that Transformers' configs and processors give it; -1 without one."""
    for owner in (config, processor):
        for name in ("image_token_id", "image_token_index", "image_patch_id"):
            found = getattr(owner, name, None)
            if isinstance(found, int):
                return found
    return -1


def decoder_of(base: Any) -> Any:
    """The language model without its head; some models return one with a head of its own as their decoder."""
    decoder = base.get_decoder()
    while hasattr(decoder, "lm_head"):
        inner = decoder.get_decoder()
        inner = getattr(decoder, "model", decoder) if inner is decoder else inner
        if inner is decoder:
            break
        decoder = inner
    return decoder


def head_of(base: Any) -> Any:
    """The module that computes logits from hidden states; it may be that of the language model."""
    head = base.get_output_embeddings()
    return getattr(base.get_decoder(), "lm_head", None) if head is None else head


def train_mode(model: Any) -> None:
    """Set the training mode, except for batch norms, whose statistics stay those of the checkpoint.

    In training, a batch norm would normalize each batch by its own statistics and change those of the model, also of a
    frozen vision tower: log-probs would depend on the other rows, and the reference would move.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


@contextlib.contextmanager
def evaluating(vlm: VLM) -> Iterator[None]:
    """Context without dropout and gradients; the training mode is restored afterwards."""
    training = vlm.model.training
    if training:  # switching the mode walks over all modules
        vlm.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if training:
            train_mode(vlm.model)


def cache_numbers(vlm: VLM) -> dict[str, float]:
    """The cache's hit rate for a manifest's numbers; empty without a cache or look-ups."""
    rate = None if vlm.cache is None else vlm.cache.hit_rate
    return {} if rate is None else {"cache_hit_rate": rate}
