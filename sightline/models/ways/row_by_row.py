"""One row at a time by the model's own forward: the reference of the other ways, and the fallback."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.models.device import to_device
from sightline.models.packing import Continuation, Ids, PackRow
from sightline.models.unbatched import unbatched_logits, unbatched_logps, unbatched_scores, unbatched_states
from sightline.models.vlm import VLM
from sightline.models.ways.base import AnswerStates, TokenScores


@dataclass(frozen=True)
class RowByRowWay:
    """Every answer is a separate pass over prefix, images and answer."""

    name: str = "row by row"
    hiding: str | None = None
    routes_tokens: bool = False
    head: str = ""

    def scores(self, vlm: VLM, rows: Sequence[PackRow], *, entropy: bool = False) -> TokenScores:
        """As `Way.scores`."""
        if entropy:
            return unbatched_scores(vlm, rows, self.hiding)
        return TokenScores(unbatched_logps(vlm, rows, self.hiding), None)

    def states(self, vlm: VLM, rows: Sequence[PackRow], *, logps: bool = False) -> AnswerStates:  # noqa: ARG002
        """As `Way.states`; the log-probs cost nothing and are always returned."""
        return AnswerStates(*unbatched_states(vlm, rows, self.hiding))

    def logits(self, vlm: VLM, rows: Sequence[PackRow]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
        """As `Way.logits`."""
        for row in rows:
            for answer in row.answers:
                yield unbatched_logits(vlm, row, answer, self.hiding)

    def start(self, vlm: VLM, continuations: Sequence[Continuation], new_tokens: int) -> "RowByRowDecoding":  # noqa: ARG002
        """As `Way.start`; each step is a pass over each whole row."""
        return RowByRowDecoding(vlm, self.hiding, list(range(len(continuations))), list(continuations))


@dataclass
class RowByRowDecoding:
    """Rows as they were given, and the tokens that continue each."""

    vlm: VLM
    hiding: str | None
    order: list[int]
    rows: list[Continuation]
    more: list[Ids] = field(init=False)

    def __post_init__(self) -> None:
        self.more = [()] * len(self.rows)

    @property
    def logits(self) -> Float[Tensor, "row vocab"]:
        """The logits of the next tokens."""
        end = min(self.vlm.end_ids)  # the last token of an answer is predicted and seen by none
        each = [
            unbatched_logits(self.vlm, PackRow(row.prefix, (), row.hidden), (*row.prefill, *more, end), self.hiding)[-1]
            for row, more in zip(self.rows, self.more, strict=True)
        ]
        return torch.stack(each)

    def step(self, tokens: Int[Tensor, "row"]) -> None:
        """Add a token to each row."""
        self.more = [(*more, token) for more, token in zip(self.more, tokens.tolist(), strict=True)]

    def select(self, rows: Sequence[int]) -> Int[Tensor, "kept"]:
        """Keep only these rows."""
        self.rows, self.more = [self.rows[n] for n in rows], [self.more[n] for n in rows]
        return to_device(torch.tensor(rows, dtype=torch.long), self.vlm.device)
