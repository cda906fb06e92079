"""Tiny random models of many types of vision-language models, with processed pictures, for the conformance of types.

A config is that of the type's class with small sizes; `ZOO` has what else a type needs. Pictures are given as the
tensors that the type's processor returns, so that no processor is needed.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

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
MINIMAX = {"mlp_layer_types": ["sparse"] * 3, "dense_intermediate_size": 64, "shared_intermediate_size": 64}
MINIMAX |= {"rotary_dim": 4, "index_n_heads": 2, "index_head_dim": 8}
LARGE4 = {
    **MLA,
    "rope_parameters": ROPE,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "index_topk": 2048,
    "layer_types": ["indexed_attention"] * 3,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "indexer_types": ["full"] * 3,
    "no_rope_layers": [1, 1, 0],
    "kv_source_layers": [0, 1, 2],
}
GLM5 = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "v_head_dim": 8,
    "qk_nope_head_dim": 8,
    "qk_head_dim": 8,
    "index_n_heads": 2,
    "index_head_dim": 8,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "head_dim": 0,
    "num_key_value_heads": 4,
    "hc_mult": 2,
    "indexer_types": ["full"] * 3,
    "layer_types": ["linear_attention", "indexed_attention", "linear_attention"],
    "mlp_layer_types": ["dense", "dense", "sparse"],
}
QWEN4 = {
    **DELTA,
    **MIXED_AXES,
    "hc_count": 2,
    "hc_lowrank": 8,
    "ngram_vocab_size_base": 64,
    "ple_embed_dim": 32,
    "split_ngram_parts": 1,
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 64,
    "indexer_compress_ratio": 4,
}
STEP = {
    **SLIDING,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "share_expert_dim": 32,
    "num_sliding_attention_heads": 4,
    "query_pre_attn_scalar": 8,
    "rope_parameters": {"full_attention": ROPE, "sliding_attention": ROPE},
}
LLAMA4 = {
    "attention_chunk_size": 8192,
    "no_rope_layers": [1, 0, 1],
    "moe_layers": [0, 1, 2],
    "intermediate_size_mlp": 64,
    "num_experts_per_tok": 1,
    "layer_types": ["chunked_attention", "full_attention", "chunked_attention"],
}
ERNIE = {
    "moe_intermediate_size": [32, 16],
    "moe_num_experts": 4,
    "moe_k": 2,
    "moe_num_shared_experts": 1,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]},
}
NEMOTRON = {
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "chunk_size": 8,
    "layers_block_type": ["linear_attention", "full_attention", "mlp", "linear_attention"],
    "moe_shared_expert_intermediate_size": 32,
}
NEMOTRON_TOWER: dict[str, Any] = {"patch_dim": 192, "video_patch_dim": 384, "max_img_size": 64, "num_cls_tokens": 1}
NEMOTRON_TOWER |= {"num_registers": 1, "torch_dtype": "float32"}
QFORMER = {
    "hidden_size": 32,
    "encoder_hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "model_type": "blip_2_qformer",
    "cross_attention_frequency": 1,
}
GRANITE = {
    **INDEX,
    **PINPOINTS,
    "downsample_rate": "1/2",
    "deepstack_layer_map": [[-2, 0], [-1, 1]],
    "spatial_target_layers": [2],
    "spatial_vision_layer": -1,
    "vision_feature_select_strategy": "default",
}
MLLAMA_TOWER = {
    "num_hidden_layers": 2,
    "num_global_layers": 1,
    "attention_heads": 4,
    "vision_output_dim": 96,
    "max_num_tiles": 1,
    "intermediate_layers_indices": [0, 1],
    "supported_aspect_ratios": [[1, 1]],
}

ZOO: dict[str, Kind] = {
    "qwen2_vl": kind(QWEN, AXES, {"hidden_size": 32, "embed_dim": 32, "mlp_ratio": 2}, FLAT),
    "qwen3_vl_moe": kind(
        QWEN,
        {**MIXED_AXES, "decoder_sparse_step": 1},
        {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]},
        FLAT,
    ),
    "qwen3_5": kind(QWEN, {**DELTA, **WHOLE_MIXED_AXES}, {"num_position_embeddings": 16}, FLAT),
    "qwen3_5_moe": kind(QWEN, {**DELTA, **WHOLE_MIXED_AXES}, {"num_position_embeddings": 16}, FLAT),
    "qwen4_exp": kind(QWEN, QWEN4, {"num_position_embeddings": 16}, FLAT),
    "glm4v": kind(GLM, WHOLE_AXES, {}, FLAT),
    "glm46v": kind(GLM, WHOLE_AXES, {}, FLAT),
    "glm4v_moe": kind(GLM, {**WHOLE_AXES, "first_k_dense_replace": 1}, {}, FLAT),
    "glm_ocr": kind(GLM, WHOLE_AXES, {}, FLAT),
    "glm5_next": kind(GLM, GLM5, {"projection_intermediate_size": 64}, FLAT),
    "mistral3": kind(INDEX, {}, {"head_dim": 8}, SIZED),
    "mistral_large4": kind(INDEX, LARGE4, {"head_dim": 8}, SIZED),
    "mistral_large4-short": kind(
        INDEX, {**LARGE4, "index_topk": 8}, {"head_dim": 8}, SIZED, model_type="mistral_large4"
    ),
    "llama4": kind(
        {**INDEX, "boi_token_index": 11, "eoi_token_index": 12},
        LLAMA4,
        {
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
            "num_hidden_layers": 2,
            "intermediate_size": 128,
        },
        SQUARE,
    ),
    "lfm2_vl": kind(
        ID,
        {**CONV, "full_attn_idxs": [1], "block_multiple_of": 8},
        {"num_patches": 16, "vision_use_head": False},
        with_more(
            plain(16, 192),
            spatial_shapes=repeated(4, 4),
            pixel_attention_mask=lambda count: torch.ones(count, 16).long(),
        ),
    ),
    "lfm3_vl": kind(QWEN, CONV, CONV, FLAT),
    "molmo2": kind(
        {
            "image_start_token_id": 11,
            "low_res_image_start_token_id": 13,
            "image_end_token_id": 12,
            "image_patch_id": IMAGE,
            "frame_start_token_id": 14,
            "frame_end_token_id": 15,
        },
        {"additional_vocab_size": 8, "rope_scaling_layers": None},
        {"image_size": [32, 32], "num_position_embeddings": 16, "num_key_value_heads": 4},
        molmo_pictures,
        parts={"adapter_config": {"vision_feature_layer": [1, 2], "num_key_value_heads": 4}},
    ),
    "minicpmv4_6": kind(
        {**BOTH, "insert_layer_id": 1, "patch_size": 8},
        DELTA,
        {"insert_layer_id": 1, "image_size": 64},
        lambda count: {"pixel_values": noise(1, 3, 8, 128 * count), "target_sizes": repeated(4, 4)(count)},
    ),
    "minimax_m3_vl": kind(
        {**INDEX, "video_token_index": VIDEO, "merged_hidden_size": 128}, {**FULL, **MINIMAX}, {}, FLAT
    ),
    "minimax_m3_vl-sparse": kind(
        {**INDEX, "video_token_index": VIDEO, "merged_hidden_size": 128},
        {**MINIMAX, "layer_types": ["minimax_m3_sparse"] * 3, "index_block_size": 4, "index_topk_blocks": 2},
        {},
        FLAT,
        model_type="minimax_m3_vl",
    ),
    "ovis2": kind(
        {**ID, "visual_indicator_token_ids": [20, 21, 22, 23, 24]}, FULL, {"vocab_size": 64, "hidden_stride": 2}, SQUARE
    ),
    "aya_vision": kind(INDEX, SLIDING, {}, SQUARE),
    "cohere2_vision": kind({**ID, "alignment_intermediate_size": 64}, SLIDING, {"vision_use_head": False}, SQUARE),
    "exaone4_5": kind(BOTH, SLIDING, {"num_key_value_heads": 2, "fullatt_block_indexes": [1], "window_size": 32}, FLAT),
    "ernie4_5_vl_moe": kind(GLM, ERNIE, {}, FLAT_STILL),
    "granite4_vision": kind(GRANITE, {}, {"projection_dim": 32}, TILES, tokens=10, parts={"qformer_config": QFORMER}),
    "hunyuan_vl": kind(
        {**ID, "im_start_id": 11, "im_end_id": 12, "im_newline_id": 13},
        {"rope_parameters": {**ROPE, "mrope_section": [1, 1, 1, 1]}, "head_dim": 8},
        {"num_key_value_heads": 4},
        FLAT_STILL,
    ),
    "kimi_k25": kind(
        {**QWEN, "projection_hidden_size": 32},
        {**MLA, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
        {"pos_emb_height": 8, "pos_emb_width": 8},
        SQUARES,
    ),
    "deepseek_vl": kind(ID, {}, {"vision_use_head": False}, SQUARE),
    "nemotron_h_omni": kind(
        {**BOTH, "vision_hidden_size": 32, "projector_hidden_size": 32},
        NEMOTRON,
        NEMOTRON_TOWER,
        grids(192, "image_grid_hw"),
    ),
    "aria": kind(
        {**INDEX, "projector_patch_to_query_dict": {"16": 8}},
        {"moe_num_experts": 4, "pad_token_id": 0},
        {},
        with_more(SQUARE, pixel_mask=lambda count: torch.ones(count, 32, 32, dtype=torch.bool)),
    ),
    "idefics2": kind(
        ID,
        {"sliding_window": None},
        {},
        lambda count: {
            "pixel_values": noise(1, count, 3, 32, 32),
            "pixel_attention_mask": torch.ones(1, count, 32, 32, dtype=torch.bool),
        },
        tokens=6,
        parts={
            "perceiver_config": {
                "resampler_n_latents": 6,
                "resampler_n_heads": 4,
                "resampler_head_dim": 8,
                "resampler_depth": 1,
            }
        },
    ),
    "video_llama_3": kind(BOTH, FULL, {}, with_more(FLAT_STILL, image_merge_sizes=lambda c: torch.tensor([2] * c))),
    "paddleocr_vl": kind(QWEN, AXES, {}, SQUARES),
    "step3p7": kind(ID, STEP, {"num_hidden_layers": 2}, SQUARE),
    "muse_glimmer": kind({**BOTH, "out_hidden_size": 128}, MUSE, MUSE_TOWER, FLAT),
    "muse_spark": kind(
        {**BOTH, "audio_token_id": 15, "out_hidden_size": 128},
        {**MUSE, "mlp_layer_types": ["sparse"] * 3, "moe_hidden_size": 32},
        MUSE_TOWER,
        FLAT,
    ),
    "gemma4": kind(GEMMA4_TOP, GEMMA4, GEMMA4_TOWER, gemma4_pictures, types=False),
    "gemma4-large": kind(
        GEMMA4_TOP,
        {**GEMMA4, "use_bidirectional_attention": "vision", "hidden_size_per_layer_input": 0},
        GEMMA4_TOWER,
        gemma4_pictures,
        model_type="gemma4",
    ),
    "mllama": kind(
        INDEX,
        {"num_hidden_layers": 4, "cross_attention_layers": [1, 3], "rope_parameters": ROPE},
        MLLAMA_TOWER,
        with_more(plain(1, 1, 3, 32, 32), aspect_ratio_ids=repeated(1), aspect_ratio_mask=repeated(1)),
        tokens=1,
    ),
    "lighton_ocr": kind(ID, FULL, {"head_dim": 8}, SIZED),
    "vipllava": kind({**INDEX, "vision_feature_layer": [-1, -2]}, {}, {}, SQUARE),
    "llava_next_video": kind({**INDEX, **PINPOINTS, "video_token_index": VIDEO}, {}, {}, TILES),
    "internvl": kind({**ID, "image_seq_length": 4}, FULL, {"image_size": [32, 32], "patch_size": [8, 8]}, SQUARE),
}


def tiny_config(name: str) -> Any:
    """The config of a type's class with small sizes."""
    spec = ZOO[name]
    cls = CONFIG_MAPPING[spec.model_type or name]
    default: Any = cls()
    settings = copy.deepcopy(default.to_dict())
    for key in ("architectures", "transformers_version", "dtype", "torch_dtype", "model_type"):
        settings.pop(key, None)
    _shrink(settings, spec.parts, "")
    settings.update({part: own for part, own in spec.parts.items() if part and settings.get(part) is None})
    config: Any = cls(**settings)
    if (spec.model_type or name) == "granite4_vision":
        config.qformer_config.num_attention_heads = 4
    return config


def _shrink(settings: dict[str, Any], parts: dict[str, dict[str, Any]], path: str) -> None:
    own = parts.get(path, {})
    layers = settings.get("num_hidden_layers")
    for key, value in list(settings.items()):
        if key in own:
            continue
        if isinstance(value, dict):
            _shrink(value, parts, f"{path}.{key}".lstrip("."))
        elif isinstance(value, list) and layers and len(value) == layers != SMALL["num_hidden_layers"]:
            settings[key] = value[: SMALL["num_hidden_layers"]]
        elif key in SMALL and isinstance(value, int) and not isinstance(value, bool):
            settings[key] = SMALL[key]
    settings.update(own)
