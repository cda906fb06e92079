"""Hybrid models, whose language models have layers with a recurrent state between attention layers.

Qwen3.5 and MiniCPM-V 4.6 have gated delta nets, LFM2-VL and LFM3-VL short convolutions, Nemotron Omni Mamba-2.
"""

from pathlib import Path
from typing import Any

from transformers import (
    Lfm2Config,
    Lfm2VlConfig,
    Lfm2VlForConditionalGeneration,
    Lfm2VlProcessor,
    Lfm3Config,
    Lfm3VlConfig,
    Lfm3VlForConditionalGeneration,
    Lfm3VlProcessor,
    MiniCPMV4_6Config,
    MiniCPMV4_6ForConditionalGeneration,
    MiniCPMV4_6Processor,
    NemotronH_Omni_Reasoning_V3,
    NemotronH_Omni_Reasoning_V3_Config,
    NemotronH_Omni_Reasoning_V3Processor,
    ParakeetFeatureExtractor,
    Qwen2VLImageProcessor,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    Qwen4ExpConfig,
    Qwen4ExpForConditionalGeneration,
    Siglip2VisionConfig,
)
from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor
from transformers.models.minicpmv4_6.image_processing_minicpmv4_6 import MiniCPMV4_6ImageProcessor
from transformers.models.minicpmv4_6.video_processing_minicpmv4_6 import MiniCPMV4_6VideoProcessor
from transformers.models.nemotron_h_omni.image_processing_nemotron_h_omni import (
    NemotronH_Omni_Reasoning_V3ImageProcessor,
)
from transformers.models.nemotron_h_omni.video_processing_nemotron_h_omni import (
    NemotronH_Omni_Reasoning_V3VideoProcessor,
)

from tests.models.families.qwen import PATCH, PICTURE, PIXELS, SPECIAL, VISION
from tests.models.families.tokenizers import chatml, id_of, train_tokenizer, vocabulary
from tests.models.families.weights import write

DELTA: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
    # With smaller heads, gradients of the normalized keys lose too many digits to compare.
    "linear_key_head_dim": 32,
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


def save_qwen4_exp(directory: Path) -> Path:
    """Attention chooses 16 tokens in blocks of 4, fewer than the rows have."""
    text: dict[str, Any] = {
        "hc_count": 2,
        "hc_lowrank": 8,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    }
    return _save_qwen(Qwen4ExpForConditionalGeneration, Qwen4ExpConfig, directory, **MOE, **text)


def _save_qwen(model: Any, config: Any, directory: Path, **text: Any) -> Path:
    tokenizer = train_tokenizer(SPECIAL, pad="<|endoftext|>", eos="<|im_end|>")
    ids: dict[str, Any] = {
        f"{name}_token_id": id_of(tokenizer, token)
        for name, token in zip(("vision_start", "vision_end", "image", "video"), SPECIAL[3:], strict=True)
    }
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "out_hidden_size": 32,
        "num_position_embeddings": 16,
    }
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
    text: dict[str, Any] = {
        **TEXT,
        "layer_types": ["conv", "full_attention", "conv"],
        "block_multiple_of": 8,
        **vocabulary(tokenizer),
    }
    vision: dict[str, Any] = {
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


def save_lfm3_vl(directory: Path) -> Path:
    """Layers of three kinds: convolutions over 7 tokens, a sliding window of 12 tokens, full attention."""
    tokenizer = train_tokenizer(SPECIAL, pad="<|endoftext|>", eos="<|im_end|>")
    kinds = ["conv", "sliding_attention", "full_attention", "conv"]
    text: dict[str, Any] = {**TEXT, "num_hidden_layers": 4, "layer_types": kinds, "head_dim": 8, "sliding_window": 12}
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "patch_size": PATCH,
        "layer_types": ["conv", "full_attention"],
    }
    ids: dict[str, Any] = {
        f"{name}_token_id": id_of(tokenizer, token)
        for name, token in zip(("vision_start", "vision_end", "image", "video"), SPECIAL[3:], strict=True)
    }
    config = Lfm3VlConfig(
        text_config=Lfm3Config(**text, **vocabulary(tokenizer)), vision_config=vision, projector_hidden_size=32, **ids
    )
    processor = Lfm3VlProcessor(  # type: ignore[no-untyped-call]
        image_processor=Qwen2VLImageProcessor(patch_size=PATCH, size=PIXELS),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(patch_size=PATCH),
        chat_template=chatml(PICTURE),
    )
    return write(Lfm3VlForConditionalGeneration(config), processor, directory, "<|im_end|>")


MINICPM_NAMED: dict[str, Any] = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "image_start_token": "<image>",
    "image_end_token": "</image>",
    "slice_start_token": "<slice>",
    "slice_end_token": "</slice>",
    "image_id_start_token": "<image_id>",
    "image_id_end_token": "</image_id>",
}


def save_minicpmv4_6(directory: Path) -> Path:
    """Large images are an overview and slices; one feature per 32 x 32 pixels."""
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *MINICPM_NAMED.values())
    tokenizer = train_tokenizer(special, pad="<|endoftext|>", eos="<|im_end|>", **MINICPM_NAMED)
    vision: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "image_size": 64,
        "patch_size": 8,
    }
    config = MiniCPMV4_6Config(
        text_config={
            "model_type": "qwen3_5_text",
            **TEXT,
            **DELTA,
            "head_dim": 8,
            **vocabulary(tokenizer),
            "rope_parameters": ROPE,
        },
        vision_config=vision,
        insert_layer_id=1,
        image_size=64,
        image_token_id=id_of(tokenizer, "<|image_pad|>"),
        video_token_id=id_of(tokenizer, "<|video_pad|>"),
    )
    sizes: dict[str, Any] = {"scale_resolution": 64, "patch_size": 8, "max_slice_nums": 2}
    processor = MiniCPMV4_6Processor(  # type: ignore[no-untyped-call]
        image_processor=MiniCPMV4_6ImageProcessor(**sizes),
        video_processor=MiniCPMV4_6VideoProcessor(**sizes),
        tokenizer=tokenizer,
        chat_template=chatml("<|image_pad|>"),
    )
    return write(MiniCPMV4_6ForConditionalGeneration(config), processor, directory, "<|im_end|>")


def save_nemotron_h_omni(directory: Path) -> Path:
    """The language model keeps its own head; one feature per 16 x 16 pixels."""
    special = ("<|pad|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>", "<img>", "</img>", "<so_embedding>")
    tokenizer = train_tokenizer(special, pad="<|pad|>", eos="<|im_end|>", image_token="<image>", video_token="<video>")
    text: dict[str, Any] = {
        "model_type": "nemotron_h",
        **{name: value for name, value in TEXT.items() if name != "num_hidden_layers"},
        "layers_block_type": ["linear_attention", "full_attention", "mlp", "linear_attention"],
        "head_dim": 8,
        "ssm_state_size": 8,
        "mamba_num_heads": 4,
        "mamba_head_dim": 8,
        "n_groups": 2,
        "chunk_size": 8,
        **vocabulary(tokenizer),
    }
    vision: dict[str, Any] = {
        "model_type": "radio",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 8,
        "image_size": 32,
        "max_img_size": 128,
        "num_cls_tokens": 1,
        "num_registers": 1,
        "patch_dim": 192,
        "video_patch_dim": 384,
        "video_temporal_patch_size": 2,
        "torch_dtype": "float32",
    }
    config = NemotronH_Omni_Reasoning_V3_Config(
        text_config=text,
        vision_config=vision,
        vision_hidden_size=32,
        projector_hidden_size=32,
        image_token_id=id_of(tokenizer, "<image>"),
        video_token_id=id_of(tokenizer, "<video>"),
    )
    processor = NemotronH_Omni_Reasoning_V3Processor(
        image_processor=NemotronH_Omni_Reasoning_V3ImageProcessor(patch_size=8, min_num_patches=16, max_num_patches=48),
        video_processor=NemotronH_Omni_Reasoning_V3VideoProcessor(),
        feature_extractor=ParakeetFeatureExtractor(),  # type: ignore[no-untyped-call]
        tokenizer=tokenizer,
        chat_template=chatml("<image>"),
    )
    return write(NemotronH_Omni_Reasoning_V3(config), processor, directory, "<|im_end|>")
