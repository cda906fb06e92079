"""The slow, plain way to the same numbers, through the processor and the whole forward, one row at a time.

It shares no code with `sightline.models`, so that the two can disagree.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor


def prompt_text(images: Sequence[Path], prompt: str) -> str:
    """The user turn as the tiny model's template writes it, with the generation prompt."""
    return "USER: " + "<image>\n" * len(images) + prompt + " ASSISTANT:"


def inputs_of(processor: Any, images: Sequence[Path], text: str) -> dict[str, Tensor]:
    """What the processor makes of a text with its images."""
    pictures = [Image.open(path).convert("RGB") for path in images]
    return dict(processor(text=text, images=pictures or None, return_tensors="pt"))


def token_logps(model: Any, processor: Any, images: Sequence[Path], prompt: str, answer: str) -> Tensor:
    """Log-probs (float64) of the tokens of " answer</s>" behind its prompt, from a forward over this row alone."""
    text = prompt_text(images, prompt)
    whole = inputs_of(processor, images, f"{text} {answer}</s>")
    start = inputs_of(processor, images, text)["input_ids"].shape[1]
    logits = model(**whole).logits[0].double()
    logps = torch.log_softmax(logits, -1)
    return torch.stack([logps[i - 1, whole["input_ids"][0, i]] for i in range(start, whole["input_ids"].shape[1])])
