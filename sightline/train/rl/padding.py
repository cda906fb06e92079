"""Numbers by token between their two forms: answers of different lengths side by side, and a table with a mask."""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mask_of(lengths: Sequence[int], device: torch.device | None = None) -> Bool[Tensor, "row token"]:
    """True on the tokens of each row, which stand from the left."""
    counts = torch.tensor(lengths, device=device)
    return torch.arange(int(counts.max()), device=device) < counts[:, None]


def table(flat: Float[Tensor, "answer_token"], mask: Bool[Tensor, "row token"]) -> Float[Tensor, "row token"]:
    """The rows, 0 behind each row's last token."""
    return torch.zeros_like(mask, dtype=flat.dtype).masked_scatter(mask, flat)


def table_of(
    rows: Iterable[Sequence[float]], mask: Bool[Tensor, "row token"], dtype: torch.dtype
) -> Float[Tensor, "row token"]:
    """The same of numbers that are no tensor yet."""
    return table(torch.tensor([number for row in rows for number in row], dtype=dtype, device=mask.device), mask)


def rows_of(values: Float[Tensor, "row token"], mask: Bool[Tensor, "row token"]) -> list[tuple[float, ...]]:
    """Each row's numbers, without what stands behind its last token."""
    lengths = mask.sum(1).tolist()
    return [tuple(row[:length]) for row, length in zip(values.tolist(), lengths, strict=True)]
