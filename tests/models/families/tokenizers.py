"""A small byte-level BPE with a family's special tokens, and parts of chat templates that families share."""

from collections.abc import Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = (
    "A red cup and a blue plate stand on the table. There is a small kettle next to the spoon.",
    "Is there a spoon in the picture? No, there is no spoon. Yes, there is a pan next to the cup.",
    "Describe the image. How many cows are there? There are two cows and one hen in front of the barn.",
    "You are a helpful assistant.\n\nThe palm is green, the bucket is yellow.\n",
    "USER: user\nASSISTANT: assistant\nUser: system\nAssistant: model\n\n\n",
)
#: GPT-2's pre-tokenization, except that line breaks stay together, as in Llama 3 and Qwen: templates end with them.
CUTS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|[\r\n]+|[^\S\r\n]+(?!\S)|[^\S\r\n]+"
#: The parts of a message of one kind; published templates of LLaVA write all images first.
IMAGES = "{% for part in message['content'] if part['type'] == 'image' %}"
TEXTS = "{% for part in message['content'] if part['type'] == 'text' %}"


def chatml(image: str, system: str = "") -> str:
    """ChatML as in Qwen and InternVL, the parts of a message in their order, `image` as the image token."""
    first = "<|im_start|>system\n" + system + "<|im_end|>\n" if system else ""
    return (
        first + "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
        "{% for part in message['content'] %}"
        f"{{{{ {image!r} if part['type'] == 'image' else part['text'] }}}}"
        "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def train_tokenizer(
    special: Sequence[str], *, pad: str, eos: str, bos: str | None = None, adds_bos: bool = False, **named: str
) -> PreTrainedTokenizerFast:
    """A BPE that begins with `special` in this order; `named` are those that a processor reads from its tokenizer."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CUTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 340,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(CORPUS * 4, trainer)
    if adds_bos:
        assert bos is not None
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, pad_token=pad, bos_token=bos, eos_token=eos, extra_special_tokens=named
    )
    rest = [token for token in special if token not in {pad, bos, eos, *named.values()}]
    tokenizer.add_special_tokens({"extra_special_tokens": rest})
    return tokenizer


def id_of(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def vocabulary(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The part of a language model's config that depends on its tokenizer, and its maximum length."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "max_position_embeddings": 512,
    }
