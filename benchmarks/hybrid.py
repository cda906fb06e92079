"""K answers to one prefix in hybrid language models, packed against row by row: CPU seconds of scoring and of a step.

The models are built in code with random weights: 8 layers of width 256, six of them gated delta nets (qwen3_5, with
Transformers' reference kernels on a CPU) or short convolutions (lfm2). A prefix has 600 tokens, an answer 40. Packed,
the prefix passes every layer once, and `tokens` is the number of tokens row by row over the number packed: the speedup
to expect where time is proportional to tokens. The two sides take turns in one process and give the same log-probs.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from common import median, options, report, versions
from transformers import AutoModelForCausalLM, Lfm2Config, Qwen3_5TextConfig

from sightline.models.attention import use_layouts
from sightline.models.encoding import EncodedImages, EncodedPrefix
from sightline.models.families import Text
from sightline.models.packing import PackRow
from sightline.models.scorer import score_rows
from sightline.models.unbatched import unbatched_logps
from sightline.models.vlm import VLM
from sightline.models.ways.packed import PackedWay

KINDS = ("qwen3_5", "lfm2")
ANSWERS = (2, 5)


def build(kind: str, *, tiny: bool) -> VLM:
    """A random language model with trainable weights."""
    width, layers, heads = (32, 4, 4) if tiny else (256, 8, 8)
    sizes: dict[str, Any] = {
        "vocab_size": 2000,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "max_position_embeddings": 4096,
    }
    if kind == "qwen3_5":
        kinds = (["linear_attention"] * 3 + ["full_attention"]) * (layers // 4)
        linear = {"linear_num_key_heads": heads // 2, "linear_num_value_heads": heads}
        linear |= {"linear_key_head_dim": 32, "linear_value_head_dim": 32, "head_dim": width // heads}
        config: Any = Qwen3_5TextConfig(**sizes, **linear, layer_types=kinds)
    else:
        kinds = ["conv", "conv", "full_attention", "conv"] * (layers // 4)
        config = Lfm2Config(**sizes, layer_types=kinds, block_auto_adjust_ff_dim=False)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(True)
    use_layouts(model)
    return VLM(model, None, kind, torch.device("cpu"), torch.float32, PackedWay(), Text())


def row_of(answers: int, *, tiny: bool) -> PackRow:
    """A text prefix with its answers."""
    prefix, length = (30, 4) if tiny else (600, 40)
    ids = tuple(30 + number * 7 % 1900 for number in range(prefix))
    own = (tuple(40 + (number * 13 + answer) % 1900 for number in range(length)) for answer in range(answers))
    return PackRow(EncodedPrefix(ids, "", ids, "", "", EncodedImages((), {}, ()), {}), tuple(own))


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    run()
    return time.process_time() - began


def compare(vlm: VLM, answers: int, *, tiny: bool, repeat: int) -> dict[str, float]:
    """Ratios of medians, row by row over packed."""
    row = row_of(answers, tiny=tiny)

    def score(side: Callable[..., torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return side(vlm, [row])

    def step(side: Callable[..., torch.Tensor]) -> None:
        vlm.model.zero_grad(set_to_none=True)
        side(vlm, [row]).sum().backward()

    difference = float((score(score_rows) - score(unbatched_logps)).abs().max())
    both = (unbatched_logps, score_rows)
    times: dict[tuple[Any, Any], list[float]] = {(run, side): [] for run in (score, step) for side in both}
    for side in both:
        step(side)
    for _ in range(repeat):
        for run, side in times:
            times[run, side].append(seconds(lambda run=run, side=side: run(side)))
    alone, packed = (
        sum(len(row.prefix.ids) + len(each) for each in row.answers),
        len(row.prefix.ids) + sum(map(len, row.answers)),
    )
    return {
        "tokens": alone / packed,
        "scoring": median(times[score, unbatched_logps]) / median(times[score, score_rows]),
        "step": median(times[step, unbatched_logps]) / median(times[step, score_rows]),
        "max_difference": difference,
    }


def main() -> None:
    """Measure both kinds with 2 and 5 answers."""
    args = options(__doc__, threads=1, repeat=3).parse_args()
    torch.set_num_threads(args.threads)
    result: dict[str, Any] = {}
    for kind in KINDS:
        vlm = build(kind, tiny=args.tiny)
        for answers in ANSWERS:
            result[f"{kind}, {answers} answers"] = compare(vlm, answers, tiny=args.tiny, repeat=args.repeat)
    result["versions"] = versions()
    report(result, as_json=args.json)


if __name__ == "__main__":
    main()
