"""InternVL as in Transformers: tiles by aspect ratio, four patches per feature, Qwen2, ChatML."""

from pathlib import Path

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    Qwen2Config,
)

from tests.models.families.tokenizers import chatml, id_of, train_tokenizer, vocabulary
from tests.models.families.weights import write

TILE = 28
PATCH = 7
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>")


def save_internvl(directory: Path) -> Path:
    tokenizer = train_tokenizer(
        SPECIAL,
        pad="<|endoftext|>",
        eos="<|im_end|>",
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            attention_bias=True,
            image_size=(TILE, TILE),
            patch_size=(PATCH, PATCH),
        ),
        text_config=Qwen2Config(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            **vocabulary(tokenizer),
        ),
        image_token_id=id_of(tokenizer, "<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    size = {"height": TILE, "width": TILE}
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size=size, crop_to_patches=True, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(size=size),
        image_seq_length=4,
        chat_template=chatml("<IMG_CONTEXT>\n"),
    )
    return write(InternVLForConditionalGeneration(config), processor, directory, "<|im_end|>")
