"""Rollouts: what the policy said to a prompt, token by token, with all that a step needs to learn from it.

Plain frozen rows, so that those which wait to be drawn go into a checkpoint. Who makes them is `sampling` and `credit`.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sightline.models.packing import Ids
from sightline.models.requests import Prefix
from sightline.records.rows import Row, Turn


class SampledAnswer(Row):
    """One answer: its tokens as they were sampled, with the end of its turn unless it was cut off.

    `score` is the judge's, as it said it; `reward` is what counts: scaled, less the penalty of the unfinished, before
    any KL. Numbers by token are those of the moment of sampling: log-probs (nats) of policy and reference, advantages,
    and, with a value head, values and the returns that it learns.
    """

    ids: Ids
    finished: bool
    score: float
    reward: float
    logps: tuple[float, ...] = ()
    ref_logps: tuple[float, ...] = ()
    advantages: tuple[float, ...] = ()
    values: tuple[float, ...] = ()
    returns: tuple[float, ...] = ()


class Rollout(Row):
    """A prompt, its image paths absolute, with the answers to it that were scored."""

    sample_id: str
    images: tuple[str, ...]
    media: tuple[str, ...] = ()
    history: tuple[Turn, ...]
    prompt: str
    answers: tuple[SampledAnswer, ...]

    @property
    def prefix(self) -> Prefix:
        """What was asked."""
        return Prefix(tuple(map(Path, self.images)), self.prompt, self.history, self.media)

    @property
    def tokens(self) -> int:
        """The tokens of all answers."""
        return sum(len(answer.ids) for answer in self.answers)


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
