"""A chat model that sees nothing: Llama 3 with a tokenizer alone."""

from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from tests.models.families.tokenizers import TEXTS, train_tokenizer, vocabulary
from tests.models.families.weights import write

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<pad>")
#: A message's content may be a string, as chat models without eyes have it, or a list of parts.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{% if message['content'] is string %}{{ message['content'] | trim }}{% else %}"
    + TEXTS
    + "{{ part['text'] | trim }}{% endfor %}{% endif %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def save_llama(directory: Path) -> Path:
    tokenizer = train_tokenizer(SPECIAL, pad="<pad>", eos="<|eot_id|>", bos="<|begin_of_text|>", adds_bos=True)
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        **vocabulary(tokenizer),
    )
    return write(LlamaForCausalLM(config), tokenizer, directory, "<|eot_id|>")
