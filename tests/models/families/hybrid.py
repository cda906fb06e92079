"""Hybrid models, whose language models have layers with a recurrent state between attention layers.

Qwen3.5 has gated delta nets, LFM2-VL short convolutions.
"""

from pathlib import Path
from typing import Any

from transformers import (
    Lfm2Config,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlProcessor,
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    Siglip2VisionConfig,
)
from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor

from tests.models.families.qwen import PATCH, PICTURE, PIXELS, SPECIAL, VISION
from tests.models.families.tokenizers import chatml, id_of, train_tokenizer, vocabulary
from tests.models.families.weights import write

DELTA: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    # With smaller heads, gradients of the normalized keys lose too many digits to compare.
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ROPE: dict[str, Any] = {
    "rope_type": "default",
    "rope_theta": 10000.0,
    "mrope_section": [2, 1, 1],
    "mrope_interleaved": True,
    "partial_rotary_factor": 1.0,
}
MOE: dict[str, Any] = {
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
}


def save_qwen3_5(directory: Path) -> Path:
    return _save_qwen(Qwen3_5ForConditionalGeneration, Qwen3_5Config, directory)


def save_qwen3_5_moe(directory: Path) -> Path:
    return _save_qwen(Qwen3_5MoeForConditionalGeneration, Qwen3_5MoeConfig, directory, **MOE)


def _save_qwen(model: Any, config: Any, directory: Path, **text: Any) -> Path:
    tokenizer = train_tokenizer(SPECIAL, pad="<|endoftext|>", eos="<|im_end|>")
    ids = {
        f"{name}_token_id": id_of(tokenizer, token)
        for name, token in zip(("vision_start", "vision_end", "image", "video"), SPECIAL[3:], strict=True)
    }
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 16}
    settings = config(
        text_config={**TEXT, **DELTA, "head_dim": 8, "rope_parameters": ROPE, **vocabulary(tokenizer), **text},
        vision_config={**VISION, **vision},
        **ids,
    )
    processor = Qwen3VLProcessor(  # type: ignore[no-untyped-call]
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH, size=PIXELS),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(patch_size=PATCH),
        chat_template=chatml(PICTURE),
    )
    return write(model(settings), processor, directory, "<|im_end|>")


LFM_SPECIAL = (
    "<|pad|>",
    "<|im_start|>",
    "<|im_end|>",
    "<image>",
    "<|image_start|>",
    "<|image_end|>",
    "<|img_thumbnail|>",
)
LFM_IMAGES: dict[str, Any] = {
    "encoder_patch_size": 8,
    "min_image_tokens": 4,
    "max_image_tokens": 12,
    "max_num_patches": 48,
    "do_image_splitting": False,
}


def save_lfm2_vl(directory: Path) -> Path:
    """Images keep their aspect ratio; one feature per 16 x 16 pixels."""
    tokenizer = train_tokenizer(LFM_SPECIAL, pad="<|pad|>", eos="<|im_end|>", image_token="<image>")
    text = {
        **TEXT,
        "layer_types": ["conv", "full_attention", "conv"],
        "block_multiple_of": 8,
        **vocabulary(tokenizer),
    }
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 8,
        "num_patches": 16,
        "vision_use_head": False,
    }
    config = Lfm2VlConfig(
        text_config=Lfm2Config(**text),
        vision_config=Siglip2VisionConfig(**vision),
        image_token_id=id_of(tokenizer, "<image>"),
        projector_hidden_size=32,
    )
    processor = Lfm2VlProcessor(Lfm2VlImageProcessor(**LFM_IMAGES), tokenizer, chat_template=chatml("<image>"))
    return write(Lfm2VlForConditionalGeneration(config), processor, directory, "<|im_end|>")
