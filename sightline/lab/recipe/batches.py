"""Conversations -> token tensors with labels on the assistant's words only; images stay features until the model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from sightline.lab.recipe.corpus import Conversation

IGNORED = -100


@dataclass(frozen=True)
class TokenRow:
    """Token ids with the image token repeated once per patch, and labels of the same length."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    with_image: bool


def tokenize(tokenizer: PreTrainedTokenizerFast, conversation: Conversation, patches: int) -> TokenRow:
    """The ids that the processor's chat template would give, with labels on answers and their end tokens."""
    ids: list[int] = [tokenizer.bos_token_id]
    labels: list[int] = [IGNORED]
    for number, (asked, answered) in enumerate(conversation.turns):
        picture = "<image>" * patches + "\n" if number == 0 and conversation.with_image else ""
        before = _ids(tokenizer, f"USER: {picture}{asked} ASSISTANT:")
        after = [*_ids(tokenizer, f" {answered}"), tokenizer.eos_token_id]
        ids += before + after
        labels += [IGNORED] * len(before) + after
    return TokenRow(tuple(ids), tuple(labels), conversation.with_image)


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
