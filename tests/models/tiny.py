"""A tiny random LLaVA with a tokenizer trained here, saved as a Hugging Face directory, and random images.

It has the real classes (CLIP tower, Llama, `LlavaProcessor`) but random weights, so it tests computations, not quality.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

IMAGE_SIZE = 36
PATCH_SIZE = 12
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2
SPECIAL = ("<pad>", "<s>", "</s>", "<image>")
#: The form of LLaVA-1.5: no space after the generation prompt, so an answer begins with one.
TEMPLATE = (
    "{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ part['text'] + (' ' if message['role'] == 'user' else '</s>') }}"
    "{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
CORPUS = (
    "USER: Describe the picture. ASSISTANT: A red cup and a blue plate stand on the table. There is a small kettle.",
    "USER: Is there a spoon in the image? ASSISTANT: No, there is no spoon. Yes, there is a pan next to the cup.",
    "USER: How many cows are there? ASSISTANT: There are two cows and one hen in front of the barn.",
    "In addition, a boat and an umbrella are on the beach. The palm is green, the bucket is yellow.",
)


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of about 400 entries that prepends `<s>`, as Llama's does."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS * 4, trainer)
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


def save_tiny_llava(directory: Path, seed: int = 0) -> Path:
    """Save a random LLaVA with two layers per tower and its processor to `directory`."""
    tokenizer = train_tokenizer()
    torch.manual_seed(seed)
    size: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    text = LlamaConfig(
        **size,
        vocab_size=len(tokenizer),
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE),
        text_config=text,
        image_token_index=SPECIAL.index("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        # The usual small initialization makes every next token equally likely; tests of differences need others.
        for parameter in model.model.language_model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
        model.model.multi_modal_projector.linear_2.weight.mul_(20)
        model.lm_head.weight.mul_(8)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(directory)
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )
    LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(directory)
    return directory


def save_pictures(directory: Path, count: int = 4) -> list[Path]:
    """Save random, distinct images."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(count):
        pixels = rng.integers(0, 256, size=(3, 3, 3), dtype=np.uint8)
        path = directory / f"picture-{index}.png"
        Image.fromarray(pixels).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.NEAREST).save(path)
        paths.append(path)
    return paths
