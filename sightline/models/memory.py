"""Memory of forward passes, reckoned from a model's config."""

from typing import Any

from sightline.models.vlm import VLM


def key_value_bytes(vlm: VLM) -> int:
    """The bytes of one token's keys and values in all layers: 2 x layers x key-value heads x head width x item size."""
    config: Any = vlm.base.config.get_text_config()
    heads = int(config.num_attention_heads)
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return 2 * int(config.num_hidden_layers) * groups * width * vlm.dtype.itemsize
