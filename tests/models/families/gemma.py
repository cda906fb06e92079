"""PaliGemma, PaliGemma 2 and Gemma 3: SigLIP before Gemma, bidirectional attention within an image or a prompt."""

from pathlib import Path
from typing import Any

from transformers import (
    Gemma2Config,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma3TextConfig,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from tests.models.families.tokenizers import IMAGES, TEXTS, id_of, train_tokenizer, vocabulary
from tests.models.families.weights import write

#: Shorter than any prompt with an image, so that layers with a sliding window do not see its beginning.
WINDOW = 8
#: PaliGemma was published without a template. The model wants `<image>`s, `<bos>`, prompt, `\n`, answer, `<eos>`, of
#: which the processor itself writes the repetition of `<image>`, `<bos>` and `\n` for any text it is called with. So
#: what it is given must end with the prompt, and the `\n` appears only where an answer follows.
PALIGEMMA = (
    "{% for message in messages %}"
    + IMAGES
    + "{{ '<image>' }}{% endfor %}"
    + TEXTS
    + "{{ part['text'] if message['role'] == 'user' else '\n' + part['text'] + eos_token }}{% endfor %}{% endfor %}"
)
GEMMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for part in message['content'] %}"
    "{{ '<start_of_image>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}"
    "{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        **vocabulary(tokenizer),
    }


def _vision(size: int) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=size,
        patch_size=14,
        vision_use_head=False,
    )


def _save_paligemma(directory: Path, text: Any, **options: Any) -> Path:
    tokenizer = train_tokenizer(
        ("<pad>", "<eos>", "<bos>", "<image>"), pad="<pad>", eos="<eos>", bos="<bos>", image_token="<image>"
    )
    image_processor: Any = SiglipImageProcessor(size={"height": 28, "width": 28})
    image_processor.image_seq_length = 4
    # The processor adds tokens for places and shapes, so the vocabulary is counted after it.
    processor = PaliGemmaProcessor(image_processor, tokenizer, chat_template=PALIGEMMA)  # type: ignore[no-untyped-call]
    config = PaliGemmaConfig(
        vision_config=_vision(28),
        text_config=text(**_text(tokenizer), **options),
        image_token_index=id_of(tokenizer, "<image>"),
        projection_dim=32,
        hidden_size=32,
    )
    return write(PaliGemmaForConditionalGeneration(config), processor, directory, "<eos>")


def save_paligemma(directory: Path) -> Path:
    return _save_paligemma(directory, GemmaConfig)


def save_paligemma2(directory: Path) -> Path:
    return _save_paligemma(
        directory,
        Gemma2Config,
        query_pre_attn_scalar=16,
        sliding_window=WINDOW,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=8.0,
    )


def save_gemma3(directory: Path) -> Path:
    special = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
    images = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = train_tokenizer(
        (*special, *images.values()), pad="<pad>", eos="<eos>", bos="<bos>", adds_bos=True, **images
    )
    config = Gemma3Config(
        vision_config=_vision(56),
        text_config=Gemma3TextConfig(
            **_text(tokenizer),
            query_pre_attn_scalar=16,
            sliding_window=WINDOW,
            layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            },
        ),
        mm_tokens_per_image=4,
        boi_token_index=id_of(tokenizer, "<start_of_image>"),
        eoi_token_index=id_of(tokenizer, "<end_of_image>"),
        image_token_index=id_of(tokenizer, "<image_soft_token>"),
    )
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": 56, "width": 56}, do_pan_and_scan=False),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=GEMMA3,
    )
    return write(Gemma3ForConditionalGeneration(config), processor, directory, "<end_of_turn>")
