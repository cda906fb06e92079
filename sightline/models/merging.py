"""Merging an adapter into the weights that it changes, and the weight names of published checkpoints.

If head and embedding share one matrix and the adapter changes one of them, each first gets its own copy. `adapters` and
`apps.export` save the result.
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
    """Return the base model with the adapter merged into its weights; `model` must not be used afterwards.

    A head that no longer equals the embedding is untied in the config, so that it is saved and loaded separately.
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
    """Copy the matrix that head and embedding share if either has an adapter layer."""
    head, embedding = base.get_output_embeddings(), base.get_input_embeddings()
    if head is None or not any(isinstance(each, BaseTunerLayer) for each in (head, embedding)):
        return
    own, other = _layer_below(head), _layer_below(embedding)
    if own.weight is other.weight:
        own.weight = nn.Parameter(own.weight.detach().clone(), requires_grad=own.weight.requires_grad)


def _layer_below(module: Any) -> Any:
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


#: A level of module names inside a vision tower that published checkpoints have and Transformers' classes lack.
TOWER_LEVEL = "vision_model"


@contextlib.contextmanager
def published_names(model: Any) -> Iterator[None]:
    """Context in which `model.save_pretrained` names the vision tower's weights as published checkpoints do."""
    known = getattr(model, "_weight_conversions", None)
    mapping = get_model_conversion_mapping(model, add_legacy=False)
    # All names of the class, not only those in the file that the model was loaded from: a head untied since then is
    # not in that file. A prefix change is kept if the file needed it.
    names = [each for each in mapping if not isinstance(each, PrefixChange)]
    prefixes = [each for each in known or () if isinstance(each, PrefixChange) and not _is_tower_level(each)]
    model._weight_conversions = [*names, *prefixes, *filter(_is_tower_level, mapping)]
    try:
        yield
    finally:
        model._weight_conversions = known


def _is_tower_level(conversion: Any) -> bool:
    """Whether a conversion drops the level of a tower inside the model; a separate tower has no such level."""
    is_level = isinstance(conversion, PrefixChange) and conversion.prefix_to_remove == TOWER_LEVEL
    return is_level and bool(conversion.scope_prefix)
