"""Conversations -> token tensors with labels on the assistant's words only; images stay features until the model."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from sightline.lab.recipe.corpus import Conversation

IGNORED = -100
_POOL = 4  # batches drawn together and sorted by length: less padding


@dataclass(frozen=True)
class TokenRow:
    """Token ids with the image token repeated once per patch, labels of the same length, and whose features go in."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    picture: int | None


Batch = Sequence[TokenRow]


def tokenize(
    tokenizer: PreTrainedTokenizerFast, conversation: Conversation, picture: int | None, patches: int
) -> TokenRow:
    """The ids that the processor's chat template would give, with labels on answers and their end tokens."""
    ids: list[int] = [tokenizer.bos_token_id]
    labels: list[int] = [IGNORED]
    for number, (asked, answered) in enumerate(conversation):
        shown = "<image>" * patches + "\n" if number == 0 and picture is not None else ""
        before = _ids(tokenizer, f"USER: {shown}{asked} ASSISTANT:")
        after = [*_ids(tokenizer, f" {answered}"), tokenizer.eos_token_id]
        ids += before + after
        labels += [IGNORED] * len(before) + after
    return TokenRow(tuple(ids), tuple(labels), picture)


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def collate(rows: Sequence[TokenRow], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and labels, each int64 [row, token]; with a causal model right padding needs no mask."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED)
    for number, row in enumerate(rows):
        ids[number, : len(row.ids)] = torch.tensor(row.ids)
        labels[number, : len(row.labels)] = torch.tensor(row.labels)
    return ids, labels


def batches_of(draw: Callable[[], TokenRow], size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Batches of rows of about equal length, without end."""
    while True:
        pool = sorted((draw() for _ in range(size * _POOL)), key=lambda row: len(row.ids))
        for number in rng.permutation(_POOL):
            yield pool[number * size : (number + 1) * size]
