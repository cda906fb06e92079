"""An adapter added into the weights it changes, for a checkpoint that computes what model and adapter compute.

Where head and embedding share one matrix and the adapter changes one of the two, the matrix is first given to both:
their sums differ. `adapters` and the export save the result.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange

from sightline.models.loading import peft_warnings_ignored


def merge_adapter(model: PeftModel) -> Any:
    """The base model with the adapter in its weights; `model` is used up.

    A head that no longer equals the embedding is untied in the config, so that it is saved, and read, on its own.
    """
    base = model.get_base_model()
    _split_shared_matrix(base)
    with peft_warnings_ignored():
        merged: Any = model.merge_and_unload()
    head, embedding = merged.get_output_embeddings(), merged.get_input_embeddings()
    if head is not None and head.weight is not embedding.weight and not torch.equal(head.weight, embedding.weight):
        for config in (merged.config, merged.config.get_text_config()):
            config.tie_word_embeddings = False
        merged.all_tied_weights_keys = {}
    return merged


def _split_shared_matrix(base: Any) -> None:
    """Give head and embedding a matrix each, where they share one and an adapter layer is on either."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    if head is None or not any(isinstance(each, BaseTunerLayer) for each in (head, embedding)):
        return
    own, other = _layer_below(head), _layer_below(embedding)
    if own.weight is other.weight:
        own.weight = nn.Parameter(own.weight.detach().clone(), requires_grad=own.weight.requires_grad)


def _layer_below(module: Any) -> Any:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


#: The level that published checkpoints have inside a vision tower, and the classes of Transformers do not.
TOWER_LEVEL = "vision_model"


@contextlib.contextmanager
def published_names(model: Any) -> Iterator[None]:
    """Inside, `model.save_pretrained` names the weights of a vision tower as published checkpoints do."""
    known = getattr(model, "_weight_conversions", None)
    mapping = get_model_conversion_mapping(model, add_legacy=False)
    # All names of the class, and not those alone that the file had which the model was opened from: a head that was
    # untied since is in no such file. A prefix change is kept where the file needed it.
    names = [each for each in mapping if not isinstance(each, PrefixChange)]
    prefixes = [each for each in known or () if isinstance(each, PrefixChange) and not _is_tower_level(each)]
    model._weight_conversions = [*names, *prefixes, *filter(_is_tower_level, mapping)]
    try:
        yield
    finally:
        model._weight_conversions = known


def _is_tower_level(conversion: Any) -> bool:
    """Whether a conversion drops the level of a tower inside the model; a tower on its own has no such level."""
    is_level = isinstance(conversion, PrefixChange) and conversion.prefix_to_remove == TOWER_LEVEL
    return is_level and bool(conversion.scope_prefix)
