"""Reference log-probs and logits through processor and whole forward, one row at a time.

It shares no code with `sightline.models`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor


def prompt_text(images: Sequence[Path], prompt: str) -> str:
    """The user turn and the generation prompt as rendered by the tiny model's template."""
    return "USER: " + "<image>\n" * len(images) + prompt + " ASSISTANT:"


def inputs_of(processor: Any, images: Sequence[Path], text: str) -> dict[str, Tensor]:
    """The processor's output for a text with its images."""
    pictures = [Image.open(path).convert("RGB") for path in images]
    return dict(processor(text=text, images=pictures or None, return_tensors="pt"))


def token_logps(model: Any, processor: Any, images: Sequence[Path], prompt: str, answer: str) -> Tensor:
    """Log-probs (float64) of the tokens of " answer</s>" after its prompt, from a forward over this row alone."""
    logits, ids = answer_logits(model, processor, images, prompt, answer)
    return torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]


def token_entropies(model: Any, processor: Any, images: Sequence[Path], prompt: str, answer: str) -> Tensor:
    """Entropies (nats, float64) of the distributions that these tokens come from."""
    logps = torch.log_softmax(answer_logits(model, processor, images, prompt, answer)[0], -1)
    return -(logps.exp() * logps).sum(-1)


def answer_logits(
    model: Any, processor: Any, images: Sequence[Path], prompt: str, answer: str
) -> tuple[Tensor, Tensor]:
    """Logits (float64) before each token of the answer, and its ids."""
    text = prompt_text(images, prompt)
    whole = inputs_of(processor, images, f"{text} {answer}</s>")
    start = inputs_of(processor, images, text)["input_ids"].shape[1]
    return model(**whole).logits[0, start - 1 : -1].double(), whole["input_ids"][0, start:]
