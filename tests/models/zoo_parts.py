"""Sizes, pictures and settings of which the types of `tests.models.zoo` consist."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Images = Callable[[int], dict[str, Tensor]]

#: Sizes of all parts, where a config has them.
SMALL: dict[str, int] = {
    **dict.fromkeys(("hidden_size", "embed_dim", "out_hidden_size", "projection_dim", "text_hidden_size"), 32),
    **dict.fromkeys(("image_size", "moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("projector_hidden_size", "projector_hidden_dim"), 32),
    **dict.fromkeys(("intermediate_size", "mlp_dim"), 64),
    **dict.fromkeys(("num_attention_heads", "num_heads", "num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_hidden_layers", "num_layers"), 3),
    **dict.fromkeys(("depth", "num_key_value_heads", "num_experts_per_tok", "eos_token_id"), 2),
    **dict.fromkeys(("head_dim", "patch_size"), 8),
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
AXES = {"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1]}}
WHOLE_AXES = {"rope_parameters": {**AXES["rope_parameters"], "partial_rotary_factor": 1.0}}
MIXED_AXES = {"rope_parameters": {**AXES["rope_parameters"], "mrope_interleaved": True}}
WHOLE_MIXED_AXES = {"rope_parameters": {**MIXED_AXES["rope_parameters"], "partial_rotary_factor": 1.0}}
FULL = {"layer_types": ["full_attention"] * 3}
SLIDING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": 12}
CONV = {"layer_types": ["conv", "full_attention", "conv"]}
DELTA = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
MLA = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 4, "v_head_dim": 8, "qk_nope_head_dim": 4}
MLA |= {"qk_head_dim": 8, "head_dim": 4, "num_key_value_heads": 4}
IMAGE, VIDEO = 9, 10
QWEN = {"image_token_id": IMAGE, "video_token_id": VIDEO, "vision_start_token_id": 11, "vision_end_token_id": 12}
GLM = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "image_start_token_id": 11,
    "image_end_token_id": 12,
    "video_start_token_id": 13,
    "video_end_token_id": 14,
}
MUSE = {**SLIDING, "layer_rope_theta": [10000.0, 0, 10000.0]}
MUSE_TOWER = {
    "pos_emb_height": 8,
    "pos_emb_width": 8,
    "layer_types": ["window_attention", "full_attention", "full_attention"],
}
GEMMA4 = {
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_hidden_layers": 4,
    "sliding_window": 12,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 256,
    "num_kv_shared_layers": 0,
    "per_layer_config": {"01": {"head_dim": 16}, "03": {"head_dim": 16}},
    "rope_parameters": {"sliding_attention": ROPE, "full_attention": ROPE},
}
GEMMA4_TOWER: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
    "patch_size": 4,
    "pooling_kernel_size": 2,
}
GEMMA4_TOWER |= {"position_embedding_size": 16, "model_type": "gemma4_vision", "hidden_size": 32, "head_dim": 8}
GEMMA4_TOWER |= {"intermediate_size": 64, "num_attention_heads": 4}
GEMMA4_TOP = {"image_token_id": IMAGE, "video_token_id": VIDEO, "audio_token_id": 15, "boi_token_id": 11}
GEMMA4_TOP |= {"eoi_token_id": 12, "boa_token_id": 16, "eoa_token_index": 17}


def noise(*shape: int) -> Tensor:
    """Pixels, the same in each call with one shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def plain(*shape: int) -> Images:
    """`pixel_values` of one shape per picture."""
    return lambda count: {"pixel_values": noise(count, *shape)}


def grids(values: int, key: str = "image_grid_thw", *shape: int) -> Images:
    """Patches of pictures of different forms, with their numbers of rows and columns."""

    def make(count: int) -> dict[str, Tensor]:
        grid = torch.tensor([(1, 4, 4), (1, 4, 6), (1, 6, 4)][:count])
        dims = 2 if key == "image_grid_hw" else 3
        patches = int(grid.prod(-1).sum())
        return {"pixel_values": noise(patches, *(shape or (values,))), key: grid[:, -dims:]}

    return make


def with_more(images: Images, **more: Callable[[int], Tensor]) -> Images:
    """Pictures with further tensors."""
    return lambda count: {**images(count), **{name: make(count) for name, make in more.items()}}


def repeated(*values: Any) -> Callable[[int], Tensor]:
    """One row of values for each picture."""
    return lambda count: torch.tensor([list(values)] * count)


def gemma4_pictures(count: int) -> dict[str, Tensor]:
    """16 patches in a square."""
    places = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy"), -1).reshape(1, 16, 2)
    return {"pixel_values": noise(count, 16, 48), "image_position_ids": places.expand(count, -1, -1).clone()}


def molmo_pictures(count: int) -> dict[str, Tensor]:
    """16 patches, pooled by fours."""
    pools = torch.tensor([[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])
    return {
        "pixel_values": noise(count, 16, 192),
        "image_token_pooling": torch.cat([pools + 16 * number for number in range(count)]),
        "image_grids": torch.tensor([[2, 2, 0, 0]] * count),
        "image_num_crops": torch.tensor([1] * count),
    }


@dataclass(frozen=True)
class Kind:
    """A type's further config by part ("" for the whole), its pictures, and its image tokens for each picture."""

    parts: dict[str, dict[str, Any]]
    images: Images
    tokens: int | None = None  # None: as many as there are features
    types: bool = True  # whether the processor returns token types, if the model takes them
    model_type: str = ""


def kind(top: dict[str, Any], text: dict[str, Any], tower: dict[str, Any], images: Images, **more: Any) -> Kind:
    """A type with the usual three parts."""
    parts = {"": top, "text_config": text, "vision_config": tower, **more.pop("parts", {})}
    return Kind(parts, images, **more)


INDEX = {"image_token_index": IMAGE}
ID = {"image_token_id": IMAGE}
BOTH = {"image_token_id": IMAGE, "video_token_id": VIDEO}
SQUARE = plain(3, 32, 32)
TILES = with_more(plain(2, 3, 32, 32), image_sizes=repeated(32, 32))
SIZED = with_more(SQUARE, image_sizes=repeated(32, 32))
FLAT = grids(3 * 2 * 64)
FLAT_STILL = grids(3 * 64)
SQUARES = grids(0, "image_grid_thw", 3, 8, 8)
PINPOINTS = {"image_grid_pinpoints": [[32, 32], [32, 64]], "image_seq_length": 16}
