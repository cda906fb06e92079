"""Models built in code, with random weights and a real tokenizer and processor, and pairs for them.

A size is a row of `SHAPES`. The weights know nothing, so these models measure speed and never quality. The chat
templates write the first token and end with the end-of-turn token: there, and only there, TRL and Sightline agree about
what an answer is (see README.md).
"""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    LlavaNextProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils import is_torchvision_available

from sightline.data.preference_dataset import PAIRS, write_preference_dataset
from sightline.records import Pair, write_rows


@dataclass(frozen=True)
class Shape:
    """Widths and depths; `text` and `vision` are (width, inner width, layers, heads), `picture` a width and height.

    `tied` says whether the head is the embedding, as in small language models.
    """

    text: tuple[int, int, int, int]
    kv_heads: int
    vision: tuple[int, int, int, int]
    vocabulary: int
    picture: tuple[int, int]
    answer: int = 90
    tied: bool = True
    pixels: int = 336
    patch: int = 14


#: "small" has 64 million parameters and 577 (LLaVA) or 576 (Qwen) image tokens; "7b" is the real thing's shape.
SHAPES: dict[tuple[str, str], Shape] = {
    ("llava", "tiny"): Shape((64, 128, 2, 4), 4, (32, 64, 2, 4), 1200, (80, 60), answer=12, pixels=56),
    ("llava", "small"): Shape((512, 1376, 12, 8), 8, (384, 1536, 5, 6), 32000, (480, 360)),
    ("llava_next", "tiny"): Shape((64, 128, 2, 4), 2, (32, 64, 2, 4), 1200, (80, 60), answer=12, pixels=56),
    ("llava_next", "7b"): Shape(
        (4096, 11008, 32, 32), 32, (1024, 4096, 24, 16), 32064, (640, 480), answer=180, tied=False
    ),
    ("qwen2_5_vl", "tiny"): Shape((64, 128, 2, 4), 2, (32, 64, 2, 4), 1200, (112, 84), answer=12),
    ("qwen2_5_vl", "small"): Shape((512, 1376, 12, 8), 2, (384, 1024, 5, 6), 32000, (672, 672)),
    ("qwen2_5_vl", "7b"): Shape(
        (3584, 18944, 28, 28), 4, (1280, 3420, 32, 16), 152064, (1400, 1120), answer=180, tied=False
    ),
}
WORDS = ["".join(parts) for parts in itertools.product("bdgklmnprst", "aeiou", ("n", "rt", "sk", "lo", "mi", "ta"))]
LLAVA_SPECIAL = ("<pad>", "<s>", "</s>", "<image>")
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
QWEN_SPECIAL += ("<|image_pad|>", "<|video_pad|>")
LLAVA_TEMPLATE = (
    "{{ '<s>' }}{% for message in messages %}"
    "{{ 'USER: ' if message['role'] == 'user' else 'ASSISTANT: ' }}"
    "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ ' ' if message['role'] == 'user' else '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] %}"
    "{{ '<|vision_start|><|image_pad|><|vision_end|>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
    "{{ '<|im_end|>' }}{{ '\n' if message['role'] == 'user' else '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


if not is_torchvision_available():
    # Qwen's processor cannot be built or opened without its video part, which needs torchvision; no video is used
    # here. Both sides import this module.
    Qwen2_5_VLProcessor.get_attributes = classmethod(lambda _: ["image_processor", "tokenizer"])


def build_model(kind: str, size: str, *, seed: int, device: str, dtype: str) -> tuple[Any, Any]:
    """A random model, made on its device, and its processor."""
    shape = SHAPES[kind, size]
    special = QWEN_SPECIAL if kind == "qwen2_5_vl" else LLAVA_SPECIAL
    tokenizer = _tokenizer(special, shape.vocabulary)
    config, processor = _PARTS[kind](shape, tokenizer)
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return model, processor


def save_model(kind: str, size: str, directory: Path, *, seed: int, device: str, dtype: str) -> int:
    """Write a random model with its processor to `directory`; returns the number of its parameters."""
    model, processor = build_model(kind, size, seed=seed, device=device, dtype=dtype)
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return int(model.num_parameters())


def save_pairs(kind: str, size: str, directory: Path, count: int, seed: int) -> None:
    """Write `count` pairs, each with its own picture and answers of about `Shape.answer` tokens."""
    shape, rng = SHAPES[kind, size], np.random.default_rng(seed)
    (directory / "images").mkdir(parents=True)
    pairs = []
    for index in range(count):
        pixels = rng.integers(0, 256, size=(12, 16, 3), dtype=np.uint8)
        name = f"images/{index:05d}.png"
        Image.fromarray(pixels).resize(shape.picture, Image.Resampling.BICUBIC).save(directory / name)
        chosen, rejected = (_answer(rng, shape.answer) for _ in range(2))
        prompt = "Describe the image in detail. " + " ".join(rng.choice(WORDS, 6)) + "?"
        pairs.append(
            Pair(id=f"{index:05d}", images=(name,), prompt=prompt, chosen=chosen, rejected=rejected, builder="random")
        )
    write_rows(directory / PAIRS, pairs)
    write_preference_dataset(directory)


def _answer(rng: np.random.Generator, tokens: int) -> str:
    """Words of one token each, with a full stop after every twelfth; the end of turn is one more token."""
    count = int(rng.integers(round(tokens * 0.74), round(tokens * 1.1) + 1))
    words = [str(word) + "." * (place % 12 == 11) for place, word in enumerate(rng.choice(WORDS, count))]
    return " ".join(words)


def _tokenizer(special: tuple[str, ...], vocabulary: int) -> Any:
    """A byte-level BPE trained on the words, filled up with entries that no text uses."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1100,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([" " + " ".join(WORDS)] * 2, trainer)
    written = json.loads(core.to_str())
    entries = written["model"]["vocab"]
    entries |= {f"filler{number}": number for number in range(len(entries), vocabulary)}
    is_qwen = special == QWEN_SPECIAL
    named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"} if is_qwen else {"image_token": "<image>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(written)),
        pad_token="<|endoftext|>" if is_qwen else "<pad>",
        bos_token=None if is_qwen else "<s>",
        eos_token="<|im_end|>" if is_qwen else "</s>",
        extra_special_tokens=named,
    )


def _sizes(shape: tuple[int, int, int, int]) -> dict[str, int]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return dict(zip(names, shape, strict=True))


def _text(shape: Shape, tokenizer: Any) -> dict[str, Any]:
    return {
        **_sizes(shape.text),
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _llava(shape: Shape, tokenizer: Any) -> tuple[Any, Any]:
    """All 577 states of the tower, the class token with them, are image tokens."""
    side = {"height": shape.pixels, "width": shape.pixels}
    images = CLIPImageProcessorPil(size={"shortest_edge": shape.pixels}, crop_size=side)
    common = {"patch_size": shape.patch, "vision_feature_select_strategy": "full", "num_additional_image_tokens": 1}
    processor = LlavaProcessor(images, tokenizer, chat_template=LLAVA_TEMPLATE, **common)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_sizes(shape.vision), image_size=shape.pixels, patch_size=shape.patch),
        text_config=LlamaConfig(**_text(shape, tokenizer)),
        image_token_index=LLAVA_SPECIAL.index("<image>"),
        vision_feature_select_strategy="full",
        tie_word_embeddings=shape.tied,
    )
    return config, processor


def _llava_next(shape: Shape, tokenizer: Any) -> tuple[Any, Any]:
    one, two, three = shape.pixels, 2 * shape.pixels, 3 * shape.pixels
    tiles = [[one, two], [two, one], [two, two], [three, one], [one, three]]
    side = {"height": shape.pixels, "width": shape.pixels}
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": shape.pixels}, crop_size=side, image_grid_pinpoints=tiles
    )
    common = {"patch_size": shape.patch, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = LlavaNextProcessor(images, tokenizer, chat_template=LLAVA_TEMPLATE, **common)
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**_sizes(shape.vision), image_size=shape.pixels, patch_size=shape.patch),
        text_config=LlamaConfig(**_text(shape, tokenizer)),
        image_token_index=LLAVA_SPECIAL.index("<image>"),
        image_grid_pinpoints=tiles,
        tie_word_embeddings=shape.tied,
    )
    return config, processor


def _qwen(shape: Shape, tokenizer: Any) -> tuple[Any, Any]:
    images = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12845056})
    videos = Qwen2VLVideoProcessor() if is_torchvision_available() else None
    processor = Qwen2_5_VLProcessor(images, tokenizer, videos, chat_template=QWEN_TEMPLATE)
    width, inner, layers, heads = shape.vision
    rotary = shape.text[0] // shape.text[3] // 2  # rotary pairs of a head, shared out to time, height and width
    sections = [rotary - 2 * (rotary * 3 // 8), rotary * 3 // 8, rotary * 3 // 8]
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": layers,
            "hidden_size": width,
            "intermediate_size": inner,
            "num_heads": heads,
            "out_hidden_size": shape.text[0],
            "fullatt_block_indexes": [layer for layer in range(layers) if layer % 8 == 7 or layer == layers - 1],
        },
        text_config={
            **_text(shape, tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections},
        },
        image_token_id=QWEN_SPECIAL.index("<|image_pad|>"),
        video_token_id=QWEN_SPECIAL.index("<|video_pad|>"),
        vision_start_token_id=QWEN_SPECIAL.index("<|vision_start|>"),
        vision_end_token_id=QWEN_SPECIAL.index("<|vision_end|>"),
        tie_word_embeddings=shape.tied,
    )
    return config, processor


_PARTS = {"llava": _llava, "llava_next": _llava_next, "qwen2_5_vl": _qwen}
