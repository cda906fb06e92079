"""Idefics3 and SmolVLM: an image is split into rows of named tiles, followed by the whole image.

A tile of 28 pixels gives 4 features; the longest edge becomes 56 pixels, so a square gives 20 and a strip 12.
"""

from pathlib import Path
from typing import Any

from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    LlamaConfig,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from tests.models.families.tokenizers import id_of, train_tokenizer, vocabulary
from tests.models.families.weights import write

TILE = 28
PATCH = 7
MARKS = (
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<image>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
)
EDGES: dict[str, Any] = {"size": {"longest_edge": 2 * TILE}, "max_image_size": {"longest_edge": TILE}}


def _template(start: str) -> str:
    """The published template: no space between the speaker's name and an image, one before text."""
    return (
        start + "{% for message in messages %}{{ message['role'] | capitalize }}"
        "{{ ':' if message['content'][0]['type'] == 'image' else ': ' }}"
        "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}"
        "{{ '<end_of_utterance>\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
    )


def _config(tokenizer: PreTrainedTokenizerFast, **text: Any) -> dict[str, Any]:
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    return {
        "vision_config": {**size, "num_hidden_layers": 2, "image_size": TILE, "patch_size": PATCH},
        "text_config": LlamaConfig(
            **size,
            num_hidden_layers=3,
            num_key_value_heads=2,
            **vocabulary(tokenizer),
            **text,
        ),
        "image_token_id": id_of(tokenizer, "<image>"),
        "scale_factor": 2,
    }


def save_idefics3(directory: Path) -> Path:
    special = ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<pad>", *MARKS)
    tokenizer = train_tokenizer(special, pad="<pad>", eos="<|end_of_text|>", bos="<|begin_of_text|>", adds_bos=True)
    processor = Idefics3Processor(
        Idefics3ImageProcessor(**EDGES),
        tokenizer,
        image_seq_len=4,
        chat_template=_template("<|begin_of_text|>"),
    )
    model = Idefics3ForConditionalGeneration(Idefics3Config(**_config(tokenizer)))
    return write(model, processor, directory, "<end_of_utterance>")


def save_smolvlm(directory: Path) -> Path:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<video>", *MARKS)
    tokenizer = train_tokenizer(
        special,
        pad="<|im_end|>",
        eos="<end_of_utterance>",
        bos="<|im_start|>",
        image_token="<image>",
        fake_image_token="<fake_token_around_image>",
        global_image_token="<global-img>",
    )
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(**EDGES),
        tokenizer,
        SmolVLMVideoProcessor(**EDGES),
        image_seq_len=4,
        chat_template=_template("<|im_start|>"),
    )
    config = SmolVLMConfig(**_config(tokenizer, tie_word_embeddings=True), tie_word_embeddings=True)
    return write(SmolVLMForConditionalGeneration(config), processor, directory, "<end_of_utterance>")
