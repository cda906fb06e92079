"""Text-only chat models with a tokenizer: Llama 3 and others."""

from pathlib import Path
from typing import Any

from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.models.families.tokenizers import TEXTS, train_tokenizer, vocabulary
from tests.models.families.weights import write

SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<pad>",
    "<|endoftext|>",  # Qwen's tokenizer adds it where it is missing
)
#: A message's content may be a string, as in text-only chat models, or a list of parts.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    + TEXTS
    + "{{ part['text'] | trim }}{% endfor %}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def save_llama(directory: Path) -> Path:
    return _save(LlamaForCausalLM, LlamaConfig, directory)


def save_mistral(directory: Path) -> Path:
    """A sliding window of 12 tokens in every layer."""
    return _save(MistralForCausalLM, MistralConfig, directory, sliding_window=12)


def save_qwen2(directory: Path) -> Path:
    return _save(Qwen2ForCausalLM, Qwen2Config, directory)


def save_qwen3(directory: Path) -> Path:
    return _save(Qwen3ForCausalLM, Qwen3Config, directory)


def save_gemma3_text(directory: Path) -> Path:
    """A sliding window of 12 tokens in two layers, full attention in one."""
    kinds = ["sliding_attention", "sliding_attention", "full_attention"]
    return _save(
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        directory,
        sliding_window=12,
        layer_types=kinds,
        query_pre_attn_scalar=8,
    )


def _save(model: Any, config: Any, directory: Path, **settings: Any) -> Path:
    """Save a text-only model; all use Llama's chat template."""
    tokenizer = train_tokenizer(SPECIAL, pad="<pad>", eos="<|eot_id|>", bos="<|begin_of_text|>", adds_bos=True)
    tokenizer.chat_template = TEMPLATE
    return write(model(config(**SIZES, **settings, **vocabulary(tokenizer))), tokenizer, directory, "<|eot_id|>")
