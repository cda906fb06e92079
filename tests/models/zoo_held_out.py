"""Types of which nothing was known when the general ways were written, and types whose vision towers are timm's."""

import torch
from torch import Tensor

from tests.models.zoo_parts import (
    AXES,
    BOTH,
    DELTA,
    FLAT,
    FULL,
    GEMMA4,
    GEMMA4_TOP,
    GLM,
    ID,
    IMAGE,
    INDEX,
    MIXED_AXES,
    MLA,
    QWEN,
    ROPE,
    SIZED,
    SLIDING,
    SQUARE,
    VIDEO,
    WHOLE_AXES,
    Kind,
    grids,
    kind,
    noise,
    plain,
    repeated,
)


def hybrid_pictures(count: int) -> dict[str, Tensor]:
    """Each picture in two sizes."""
    return {"pixel_values": noise(count, 3, 32, 32), "high_res_pixel_values": noise(count, 3, 64, 64)}


def docling_pictures(count: int) -> dict[str, Tensor]:
    """Tiles of one row, every second one by the coarse route."""
    return {
        "pixel_values": noise(1, count, 3, 32, 32),
        "pixel_attention_mask": torch.ones(1, count, dtype=torch.bool),
        "tile_fine_mask": torch.tensor([[True, False, True][:count]]),
    }


def unified_pictures(count: int) -> dict[str, Tensor]:
    """4 patches in a square."""
    places = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(2), indexing="xy"), -1).reshape(1, 4, 2)
    return {"pixel_values": noise(count, 4, 192), "image_position_ids": places.expand(count, -1, -1).clone()}


SAM = {"output_channels": 32, "global_attn_indexes": [1], "window_size": 2}
OCR_SAM = {**SAM, "downsample_channels": [16, 32]}
AUDIO = {
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "d_model": 32,
    "output_dim": 32,
    "num_mel_bins": 8,
}
OMNI = {**QWEN, "image_token_index": IMAGE, "video_token_index": VIDEO, "audio_token_index": 15}
DEEPSTACK = {"num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}
BY_LAYER = dict.fromkeys(("full_attention", "sliding_attention"), MIXED_AXES["rope_parameters"])
UNIFIED = {key: value for key, value in GEMMA4.items() if "per_layer_input" not in key}
DOTS_ROPE = {
    "sliding_attention": {**ROPE, "partial_rotary_factor": 0.5},
    "indexed_attention": {**ROPE, "partial_rotary_factor": 1.0},
}
DOTS = {
    **MLA,
    "layer_types": ["indexed_attention", "sliding_attention", "indexed_attention"],
    "sliding_window": 12,
    "index_topk": 2048,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "shared_experts_intermediate_size": 32,
    "rope_parameters": DOTS_ROPE,
    "per_layer_config": {"01": {"head_dim": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4}},
}
DOTS_TOWER = {
    "adapter_in_dim": 32,
    "adapter_out_dim": 32,
    "mlp_layer_types": ["dense"] * 3,
    "per_layer_config": {},
}
DOTS_AUDIO = {
    "num_hidden_layers": 1,
    "adapter_input_size": 32,
    "adapter_out_dim": 32,
    "downsample_hidden_size": 8,
    "conv_output_size": 128,
    "num_key_value_heads": 4,
}
INKLING = {
    "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding"],
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 2,
    "swa_head_dim": 8,
    "sliding_window_size": 12,
    "d_rel": 4,
    "rel_extent": 16,
    "unpadded_vocab_size": 256,
}
CODES = {"base_channels": 32, "latent_channels": 32, "channel_multiplier": [1, 1, 1], "num_res_blocks": 1}
CHAMELEON_WORDS = {
    f"IMGIMG{first}{second}Z": 100 + 8 * n + m for n, first in enumerate("AB") for m, second in enumerate("ABCDEFGH")
}
EMU_WORDS = {f"<|visual token {code:06d}|>": 100 + code for code in range(16)}
# timm has no small MobileNetV5 and no small FastViT: its smallest ConvNeXt is in their place.
CONVNEXT = {"architecture": "test_convnext", "do_pooling": False, "hidden_size": 64, "model_args": {}}
PERCEPTION = {
    "architecture": "vit_pe_core_tiny_patch16_384",
    "do_pooling": False,
    "model_args": {
        "embed_dim": 32,
        "depth": 2,
        "num_heads": 4,
        "patch_size": 8,
        "img_size": 32,
        "mlp_ratio": 2.0,
        "global_pool": "",
    },
}
GEMMA3N = {
    "num_hidden_layers": 5,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    "sliding_window": 12,
    "intermediate_size": [64] * 5,
    "hidden_size_per_layer_input": 4,
    "vocab_size_per_layer_input": 248,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0, 0.0],
}
GEMMA3N_AUDIO = {
    "vocab_size": 4,
    "vocab_offset": 252,
    "conf_num_hidden_layers": 1,
    "conf_num_attention_heads": 4,
    "input_feat_size": 16,
    "sscp_conv_channel_size": [8, 8],
}

#: Types that need timm.
TIMM = ("fast_vlm", "gemma3n", "perception_lm")
HELD_OUT: dict[str, Kind] = {
    "got_ocr2": kind(INDEX, FULL, SAM, SQUARE),
    "qianfan_ocr": kind(
        {**ID, "image_seq_length": 4},
        FULL,
        {"image_size": [32, 32], "patch_size": [8, 8], "drop_path_rate": 0.0},
        SQUARE,
    ),
    "minicpmv4_7": kind(
        {**BOTH, "insert_layer_id": 1, "patch_size": 8},
        DELTA,
        {"insert_layer_id": 1, "image_size": 64},
        lambda count: {"pixel_values": noise(1, 3, 8, 128 * count), "target_sizes": repeated(4, 4)(count)},
    ),
    "hyperclovax_vision_v2": kind(
        BOTH, {"attention_multiplier": 0.3}, {"fullatt_block_indexes": [1], "window_size": 32}, FLAT
    ),
    "glmga": kind(GLM, WHOLE_AXES, {}, FLAT),
    "janus": kind(
        ID,
        {},
        {"num_image_tokens": 16},
        SQUARE,
        parts={
            "vq_config": {
                **CODES,
                "channel_multiplier": [1, 1],
                "num_embeddings": 64,
                "num_patches": 4,
                "image_token_embed_dim": 32,
            }
        },
    ),
    "granite_docling": kind(ID, {}, {"deepstack_visual_indexes": [0, 1], "scale_factor": 2}, docling_pictures),
    "deepseek_vl_hybrid": kind(
        ID,
        {},
        {"vision_use_head": False},
        hybrid_pictures,
        parts={"high_res_vision_config": {**SAM, "num_pos_feats": 16, "scale": 32, "image_size": 64}},
    ),
    "video_llava": kind(
        {**INDEX, "video_token_index": VIDEO}, {}, {}, lambda count: {"pixel_values_images": noise(count, 3, 32, 32)}
    ),
    "cohere_compass": kind(QWEN, {**SLIDING, "rope_parameters": BY_LAYER}, DEEPSTACK, FLAT),
    "gemma4_unified": kind(
        GEMMA4_TOP,
        UNIFIED,
        {"patch_size": 4, "pooling_kernel_size": 2, "mm_embed_dim": 32, "output_proj_dims": 32},
        unified_pictures,
    ),
    "qwen2_5_omni_thinker": kind(
        OMNI, {**AXES, **FULL}, {"fullatt_block_indexes": [1], "window_size": 32}, FLAT, parts={"audio_config": AUDIO}
    ),
    "qwen3_omni_moe_thinker": kind(
        {**QWEN, "audio_token_id": 15},
        MIXED_AXES,
        DEEPSTACK,
        FLAT,
        parts={"audio_config": {**AUDIO, "downsample_hidden_size": 16}},
    ),
    "cosmos3_edge": kind(QWEN, AXES, {"num_patches": 16}, grids(192)),
    "shieldgemma2": kind(
        {**INDEX, "boi_token_index": 11, "eoi_token_index": 12, "mm_tokens_per_image": 4}, SLIDING, {}, SQUARE
    ),
    "unlimited_ocr": kind(
        ID,
        {"sliding_window": 6, "n_shared_experts": 1},
        {},
        SQUARE,
        parts={"vision_config.sam_config": OCR_SAM},
    ),
    "deepseek_ocr2": kind(
        ID,
        {
            "mlp_layer_types": ["dense", "sparse", "sparse"],
            "n_shared_experts": 1,
            "num_experts_per_tok": 2,
            "n_group": 1,
            "topk_group": 1,
        },
        {},
        SQUARE,
        parts={"vision_config.sam_config": OCR_SAM, "vision_config.encoder_config": FULL},
    ),
    "dots3_note": kind(
        {**BOTH, "audio_token_id": 15}, DOTS, DOTS_TOWER, grids(192), parts={"audio_config": DOTS_AUDIO}
    ),
    "inkling2": kind(
        ID, INKLING, {"projection_hidden_dim": 32, "posemb_grid_size": 8}, grids(0, "image_grid_thw", 16, 16, 3)
    ),
    "chameleon": Kind(
        {
            "": {**ID, "vocabulary_map": {"<image>": IMAGE, **CHAMELEON_WORDS}},
            "vq_config": {**CODES, "num_embeddings": 16, "resolution": 32},
        },
        SQUARE,
        tokens=64,
    ),
    "emu3": kind(
        {**ID, "vocabulary_map": {"<image>": IMAGE, "<|extra_200|>": 60, **EMU_WORDS}},
        {},
        {},
        SIZED,
        tokens=72,
        parts={"vq_config": {**CODES, "codebook_size": 16, "attn_resolutions": [2], "latent_channels": 4}},
    ),
    "fast_vlm": kind(INDEX, FULL, CONVNEXT, plain(3, 64, 64)),
    "perception_lm": kind({**BOTH, "projector_pooling_ratio": 2}, {}, PERCEPTION, plain(1, 3, 32, 32)),
    "gemma3n": kind(
        {**ID, "audio_token_id": 15, "boi_token_id": 11, "eoi_token_id": 12, "vision_soft_tokens_per_image": 4},
        GEMMA3N,
        {**CONVNEXT, "vocab_size": 4, "vocab_offset": 248},
        plain(3, 64, 64),
        parts={"audio_config": GEMMA3N_AUDIO},
    ),
}
