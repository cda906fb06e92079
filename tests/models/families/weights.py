"""Random weights with non-uniform predictions, and saving of a whole model directory."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sightline.models.vlm import decoder_of, head_of

#: Names of the norm before the head.
LAST_NORMS = ("norm", "embedding_norm", "norm_f")


def write(model: Any, processor: Any, directory: Path, end: str, seed: int = 0) -> Path:
    """Draw random weights, and save model and processor; `end` is the token that ends an answer."""
    redraw(model, seed)
    tokenizer = getattr(processor, "tokenizer", processor)
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(end)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    return directory


def redraw(model: Any, seed: int) -> None:
    """Draw all weights so that every layer affects the next token: the usual initialization makes all equally likely.

    Norms, biases and gates are included: they are initialized to zeros or ones, and a computation that omitted them
    would pass unnoticed.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in drawn:  # of tied weights only the first is drawn, the embedding
                    drawn.add(id(parameter))
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(_scale(noise, module, name))
        # The last norm makes the predictions sharp, whether or not the output weights are tied to the embedding.
        inner = decoder_of(model)
        last = next((getattr(inner, name) for name in LAST_NORMS if hasattr(inner, name)), None)
        if last is not None:
            last.weight.add_(1.5)
        else:
            head_of(model).weight.mul_(2.5)


def _scale(noise: torch.Tensor, module: nn.Module, name: str) -> torch.Tensor:
    if isinstance(module, nn.Embedding) or "embedding" in name or name in ("image_newline", "cls_token"):
        return 0.2 * noise
    if noise.ndim == 1:
        # Weights of norms and gates are around one, biases around zero, as are Gemma's norms, which add one.
        around = name.startswith("lambda_") or (name == "weight" and "Gemma" not in type(module).__name__)
        return float(around) + 0.2 * noise
    fan_in: int = len(noise) if name == "mm_input_projection_weight" else noise[0].numel()
    return noise * (1.2 / math.sqrt(fan_in))
