"""An adapter added into the weights it changes, for a checkpoint that computes what model and adapter compute.

Where head and embedding share one matrix and the adapter changes one of the two, the matrix is first given to both:
their sums differ. `adapters` and the export save the result.
"""

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

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
