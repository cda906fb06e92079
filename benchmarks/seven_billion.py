"""What a 7B model needs on a 24 GB and on an 80 GB card: reckoned from configs, without weights and without a card.

    python benchmarks/seven_billion.py            rewrite docs/results/seven_billion.json and the table of its page
    python benchmarks/seven_billion.py --check    compare instead of writing; exit code 1 if they are out of date

The models are built from their published configs on torch's meta device, so the counts of weights are exact.
docs/guides/seven-billion.md has the formulas. Nothing here is a measurement; `gpu_step.py` measures.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    MistralConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
)

from sightline.data.terminal import say
from sightline.models.families import FAMILIES
from sightline.models.memory import activation_bytes
from sightline.models.vlm import VLM
from sightline.models.ways.packed import PackedWay

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results/seven_billion.json", ROOT / "docs/guides/seven-billion.md"
MARKS = ("<!-- reckoned -->\n", "<!-- /reckoned -->\n")
GIB = 2**30
#: A photo of 640 x 480 pixels, a question of 40 tokens, and two answers of 120 tokens.
PROMPT, ANSWER, RANK = 40, 120, 16
#: Dense bfloat16 rate (operations a second) and memory bandwidth (bytes a second) of two cards, from their data sheets.
CARDS = {"24 GB (RTX 4090)": (165e12, 1.01e12), "80 GB (H100 SXM)": (989e12, 3.35e12)}
#: The share of the rate that a step is taken to reach, and of the bandwidth that decoding reaches.
USED = 0.45
#: Bits a weight in nf4 with doubly quantized scales (QLoRA, arXiv 2305.14314, sec. 3): 4 + 8/64 + 32/(64 x 256).
NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)


@dataclass(frozen=True)
class Model:
    """A published model: its name, config, and the image tokens of a 640 x 480 photo."""

    name: str
    config: Any
    image_tokens: int


def models() -> list[Model]:
    """LLaVA-1.5-7B, LLaVA-NeXT-7B (Mistral), Qwen2.5-VL-7B, Qwen3-VL-8B."""
    clip = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    vicuna = LlamaConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=4096,
    )
    mistral = MistralConfig(
        vocab_size=32064,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=32768,
    )
    qwen25 = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128000,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
        tie_word_embeddings=False,
    )
    qwen3 = Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 262144,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]},
        },
        vision_config={
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "num_heads": 16,
            "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        tie_word_embeddings=False,
    )
    return [
        Model("LLaVA-1.5-7B", LlavaConfig(vision_config=clip, text_config=vicuna), 24 * 24),
        # 2 x 2 tiles with a newline a row, cropped to the photo's shape, and the whole photo once.
        Model("LLaVA-NeXT-7B (Mistral)", LlavaNextConfig(vision_config=clip, text_config=mistral), 36 * 49 + 576),
        Model("Qwen2.5-VL-7B", qwen25, (640 // 28) * round(480 / 28)),
        Model("Qwen3-VL-8B", qwen3, (640 // 32) * (480 // 32)),
    ]


def reckon(model: Model) -> dict[str, Any]:
    """The model's counts, and memory and time by card."""
    with torch.device("meta"):
        base: Any = AutoModelForImageTextToText.from_config(model.config, dtype=torch.bfloat16)
    family = FAMILIES[model.config.model_type]
    vlm = VLM(base, None, model.name, torch.device("meta"), torch.bfloat16, PackedWay(), family)
    decoder = base.get_decoder()
    everything = sum(weight.numel() for weight in base.parameters())
    linear = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    inside = sum(module.weight.numel() for module in linear)
    lora = RANK * sum(module.in_features + module.out_features for module in linear)
    tokens = model.image_tokens + PROMPT + 2 * ANSWER
    weights = {
        "bfloat16": 2 * everything,
        "nf4": 2 * (everything - inside) + inside * NF4_BITS / 8,
    }
    # An adapter in float32 with its gradient and AdamW's two moments.
    trained = 16 * lora
    of_token = {
        name: activation_bytes(vlm, checkpointing=name == "checkpointing") for name in ("plain", "checkpointing")
    }
    step = {
        f"{kind}, {name}": (weights[kind] + trained + tokens * of_token[name]) / GIB
        for kind in weights
        for name in of_token
    }
    # Frozen weights, operations a weight and token: 2 forward, 2 for the gradient of activations, 2 for the reference.
    operations = (2 + 2 + 2) * inside * tokens
    # Decoding reads all weights of the language model once a step for 64 rows.
    read = 2 * inside
    return {
        "model": model.name,
        "weights": everything,
        "language_model_linear": inside,
        "adapter": lora,
        "image_tokens": model.image_tokens,
        "tokens_a_pair": tokens,
        "weights_gib": {kind: size / GIB for kind, size in weights.items()},
        "activation_kib_a_token": {name: size / 2**10 for name, size in of_token.items()},
        "one_pair_gib": step,
        "cards": {
            card: {
                "seconds_a_pair": operations / (USED * rate),
                "milliseconds_a_decoding_step": 1000 * read / (USED * bandwidth),
            }
            for card, (rate, bandwidth) in CARDS.items()
        },
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The page's table."""
    heads = [
        "model",
        "weights",
        "image tokens",
        "tokens a pair",
        "opened, bf16 / nf4",
        "DPO of one pair, bf16",
        "with checkpointing",
        "DPO of one pair, nf4, checkpointing",
        *(f"seconds a pair, {card}" for card in CARDS),
    ]
    lines = [heads, ["---"] * len(heads)]
    for row in rows:
        step, opened = row["one_pair_gib"], row["weights_gib"]
        lines.append(
            [
                row["model"],
                f"{row['weights'] / 1e9:.2f} G",
                str(row["image_tokens"]),
                str(row["tokens_a_pair"]),
                f"{opened['bfloat16']:.1f} / {opened['nf4']:.1f} GiB",
                f"{step['bfloat16, plain']:.1f} GiB",
                f"{step['bfloat16, checkpointing']:.1f} GiB",
                f"{step['nf4, checkpointing']:.1f} GiB",
                *(f"{row['cards'][card]['seconds_a_pair']:.2f}" for card in CARDS),
            ]
        )
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Write or compare; the exit code."""
    rows = [reckon(model) for model in models()]
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    page = before + MARKS[0] + table(rows) + MARKS[1] + rest.split(MARKS[1])[1]
    data = json.dumps(rows, indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        same = page == text and RESULTS.is_file() and data == RESULTS.read_text(encoding="utf-8")
        say("up to date" if same else f"out of date: {PAGE.relative_to(ROOT)}")
        return int(not same)
    PAGE.write_text(page, encoding="utf-8")
    RESULTS.write_text(data, encoding="utf-8")
    say(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
