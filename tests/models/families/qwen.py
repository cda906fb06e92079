"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: images of any aspect ratio, positions with three axes, ChatML.

An image keeps its aspect ratio and gives one feature per 14 x 14 pixels, 4 to 30 in all. All but the second of
Qwen2.5-VL's vision layers attend in windows of 28 pixels; Qwen3-VL adds vision features to text layers (DeepStack).
"""

from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from tests.models.families.tokenizers import chatml, id_of, train_tokenizer, vocabulary
from tests.models.families.weights import write

PATCH = 7
SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
PIXELS = {"shortest_edge": 28 * 28, "longest_edge": 30 * 14 * 14}
PICTURE = "<|vision_start|><|image_pad|><|vision_end|>"
VISION: dict[str, Any] = {"depth": 3, "num_heads": 2, "patch_size": PATCH}
#: Rotary sections of a head's 8 frequencies: time, height and width.
ROPE: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}


def _tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(SPECIAL, pad="<|endoftext|>", eos="<|im_end|>")


def _config(tokenizer: PreTrainedTokenizerFast, vision: dict[str, Any], **text: Any) -> dict[str, Any]:
    ids = {
        f"{name}_token_id": id_of(tokenizer, token)
        for name, token in zip(("vision_start", "vision_end", "image", "video"), SPECIAL[3:], strict=True)
    }
    text = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        **vocabulary(tokenizer),
        **text,
    }
    return {"text_config": text, "vision_config": {**VISION, **vision}, **ids}


def _parts(tokenizer: PreTrainedTokenizerFast, video_processor: Any, system: str) -> dict[str, Any]:
    return {
        "image_processor": Qwen2VLImageProcessor(patch_size=PATCH, size=PIXELS),
        "tokenizer": tokenizer,
        "video_processor": video_processor(patch_size=PATCH),
        "chat_template": chatml(PICTURE, system),
    }


def save_qwen2_vl(directory: Path) -> Path:
    tokenizer = _tokenizer()
    config = Qwen2VLConfig(
        **_config(
            tokenizer,
            {"embed_dim": 32, "hidden_size": 32, "mlp_ratio": 2},
            rope_parameters={**ROPE, "mrope_section": [2, 3, 3]},
        )
    )
    processor = Qwen2VLProcessor(**_parts(tokenizer, Qwen2VLVideoProcessor, "You are a helpful assistant."))  # type: ignore[no-untyped-call]
    return write(Qwen2VLForConditionalGeneration(config), processor, directory, "<|im_end|>")


def save_qwen2_5_vl(directory: Path) -> Path:
    tokenizer = _tokenizer()
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "window_size": 28}
    config = Qwen2_5_VLConfig(
        **_config(
            tokenizer,
            {**vision, "fullatt_block_indexes": [1]},
            rope_parameters={**ROPE, "mrope_section": [2, 3, 3]},
        )
    )
    processor = Qwen2_5_VLProcessor(**_parts(tokenizer, Qwen2VLVideoProcessor, "You are a helpful assistant."))  # type: ignore[no-untyped-call]
    return write(Qwen2_5_VLForConditionalGeneration(config), processor, directory, "<|im_end|>")


def save_qwen3_vl(directory: Path) -> Path:
    tokenizer = _tokenizer()
    vision = {"hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_position_embeddings": 16}
    config = Qwen3VLConfig(
        **_config(
            tokenizer,
            {**vision, "deepstack_visual_indexes": [0, 1]},
            head_dim=16,
            rope_parameters={**ROPE, "mrope_section": [4, 2, 2], "mrope_interleaved": True},
            tie_word_embeddings=True,
        ),
        tie_word_embeddings=True,
    )
    processor = Qwen3VLProcessor(**_parts(tokenizer, Qwen3VLVideoProcessor, ""))  # type: ignore[no-untyped-call]
    return write(Qwen3VLForConditionalGeneration(config), processor, directory, "<|im_end|>")
