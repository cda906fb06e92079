"""Tiny random models of many types of vision-language models, with processed pictures, for the conformance of types.

A config is that of the type's class with small sizes; `ZOO` has what else a type needs. Pictures are given as the
tensors that the type's processor returns, so that no processor is needed.
"""

import copy
from typing import Any

import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.models.zoo_held_out import HELD_OUT
from tests.models.zoo_parts import (
    AXES,
    BOTH,
    CONV,
    DELTA,
    FLAT,
    FLAT_STILL,
    FULL,
    GEMMA4,
    GEMMA4_TOP,
    GEMMA4_TOWER,
    GLM,
    ID,
    IMAGE,
    INDEX,
    MIXED_AXES,
    MLA,
    MUSE,
    MUSE_TOWER,
    PINPOINTS,
    QWEN,
    ROPE,
    SIZED,
    SLIDING,
    SMALL,
    SQUARE,
    SQUARES,
    TILES,
    VIDEO,
    WHOLE_AXES,
    WHOLE_MIXED_AXES,
    Kind,
    gemma4_pictures,
    grids,
    kind,
    molmo_pictures,
    noise,
    plain,
    repeated,
    with_more,
)

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
    **HELD_OUT,
}


def tiny_config(name: str) -> Any:
    """The config of a type's class with small sizes."""
    spec = ZOO[name]
    cls = CONFIG_MAPPING[spec.model_type or name]
    default: Any = cls()
    settings = copy.deepcopy(default.to_dict())
    for key in ("architectures", "transformers_version", "dtype", "torch_dtype", "model_type"):
        settings.pop(key, None)
    parts = copy.deepcopy(spec.parts)  # configs change the dictionaries that they are given
    _shrink(settings, parts, "")
    settings.update({part: own for part, own in parts.items() if part and settings.get(part) is None})
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
