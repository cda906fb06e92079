"""LLaVA-1.5, LLaVA-NeXT (Mistral) and LLaVA-OneVision (Qwen2): CLIP or SigLIP, a projector, a language model.

A view of 28 pixels gives 4 features. LLaVA-1.5 has one view of an image; the others add tiles by aspect ratio, cropped
to the image (AnyRes), with a learned newline after each row of features.
"""

from pathlib import Path
from typing import Any

from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from tests.models.families.tokenizers import IMAGES, TEXTS, id_of, train_tokenizer, vocabulary
from tests.models.families.weights import write

TILE = 28
PATCH = 14
PINPOINTS = [[28, 56], [56, 28], [56, 56]]
SIZE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
VISION: dict[str, Any] = {**SIZE, "image_size": TILE, "patch_size": PATCH}
#: CLIP's first feature (CLS) has no position; the processor counts it and the model drops it.
CLIP: dict[str, Any] = {
    "patch_size": PATCH,
    "vision_feature_select_strategy": "default",
    "num_additional_image_tokens": 1,
}
CROP: dict[str, Any] = {"size": {"shortest_edge": TILE}, "crop_size": {"height": TILE, "width": TILE}}
#: As published: no space after the generation prompt, so an answer begins with one; no token ends the turn.
VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    + IMAGES
    + "{{ '<image>\n' }}{% endfor %}"
    + TEXTS
    + "{{ part['text'] + ' ' }}{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
#: As published, but for the token that ends a turn, which is misspelled there.
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    + IMAGES
    + "{{ '<image>\n' }}{% endfor %}"
    + TEXTS
    + "{{ part['text'] }}{% endfor %}{{ ' [/INST]' }}{% else %}"
    + TEXTS
    + "{{ ' ' + part['text'] + '</s>' }}{% endfor %}{% endif %}{% endfor %}"
)
#: Not as published: there an answer's turn begins `assistant \n`, and the generation prompt is `assistant\n`.
ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] }}"
    "{{ '' if message['role'] == 'assistant' else ' ' }}"
    + IMAGES
    + "{{ '<image>' }}{% endfor %}"
    + TEXTS
    + "{{ '\n' + part['text'] }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        **SIZE,
        "num_key_value_heads": 2,
        **vocabulary(tokenizer),
    }


def _llama_tokenizer() -> PreTrainedTokenizerFast:
    special = ("<unk>", "<s>", "</s>", "<image>", "<pad>")
    return train_tokenizer(special, pad="<pad>", eos="</s>", bos="<s>", adds_bos=True, image_token="<image>")


def save_llava(directory: Path) -> Path:
    tokenizer = _llama_tokenizer()
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(**_text(tokenizer)),
        image_token_index=id_of(tokenizer, "<image>"),
        image_seq_length=(TILE // PATCH) ** 2,
        vision_feature_layer=-2,
    )
    processor = LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=CLIPImageProcessor(**CROP),
        tokenizer=tokenizer,
        **CLIP,
        chat_template=VICUNA,
    )
    return write(LlavaForConditionalGeneration(config), processor, directory, "</s>")


def save_llava_next(directory: Path) -> Path:
    tokenizer = _llama_tokenizer()
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=MistralConfig(**_text(tokenizer), sliding_window=None),
        image_token_index=id_of(tokenizer, "<image>"),
        image_grid_pinpoints=PINPOINTS,
        vision_feature_layer=-2,
    )
    processor = LlavaNextProcessor(  # type: ignore[no-untyped-call]
        image_processor=LlavaNextImageProcessor(**CROP, image_grid_pinpoints=PINPOINTS),
        tokenizer=tokenizer,
        **CLIP,
        chat_template=MISTRAL,
    )
    return write(LlavaNextForConditionalGeneration(config), processor, directory, "</s>")


def save_llava_onevision(directory: Path) -> Path:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")
    tokenizer = train_tokenizer(
        special, pad="<|endoftext|>", eos="<|im_end|>", image_token="<image>", video_token="<video>"
    )
    pinpoints = [[TILE, TILE], *PINPOINTS]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=Qwen2Config(**_text(tokenizer)),
        image_token_index=id_of(tokenizer, "<image>"),
        video_token_index=id_of(tokenizer, "<video>"),
        image_grid_pinpoints=pinpoints,
    )
    size = {"height": TILE, "width": TILE}
    processor = LlavaOnevisionProcessor(  # type: ignore[no-untyped-call]
        image_processor=LlavaOnevisionImageProcessor(size=size, image_grid_pinpoints=pinpoints),
        tokenizer=tokenizer,
        video_processor=LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(TILE // PATCH) ** 2,
        vision_feature_select_strategy="full",
        chat_template=ONEVISION,
    )
    return write(LlavaOnevisionForConditionalGeneration(config), processor, directory, "<|im_end|>")
