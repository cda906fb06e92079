"""What a way of computing a model does: log-probs, hidden states, logits, and decoding of rows.

A way is stateless; the model is an argument, since adapters and `dataclasses.replace` make other `VLM` objects of one
way. The arguments named `vlm` and `rows` are `models.vlm.VLM` and `models.packing.PackRow`, which import this file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor


class TokenScores(NamedTuple):
    """The log-prob of each token and, if requested, the entropy of its distribution.

    Both are in nats and float32; the entropy has no gradient.
    """

    logps: Float[Tensor, "token"]
    entropy: Float[Tensor, "token"] | None


@dataclass(frozen=True)
class AnswerStates:
    """Last hidden states around answers, in the order of rows and answers.

    `before` is the state that predicts each answer token, `last` that of each answer's last token. `logps` (nats,
    float32) are those of the answer tokens, None if not requested.
    """

    before: Float[Tensor, "answer_token dim"]
    last: Float[Tensor, "answer dim"]
    logps: Float[Tensor, "answer_token"] | None


@runtime_checkable
class Decoding(Protocol):
    """Rows that are being continued, one token per row and step."""

    @property
    def order(self) -> list[int]:
        """For each row of the batch, its index among the continuations that decoding was started with."""
        ...

    @property
    def logits(self) -> Float[Tensor, "row vocab"]:
        """The logits (float32) of the next token of each row."""
        ...

    def step(self, tokens: Int[Tensor, "row"]) -> None:
        """Continue each row by one token."""
        ...

    def select(self, rows: Sequence[int]) -> Int[Tensor, "kept"]:
        """Keep only these rows of the batch, which are returned as a tensor on the device.

        Valid between reading `logits` and the next `step`.
        """
        ...


@runtime_checkable
class Way(Protocol):
    """A way of computing a model. All numbers equal those of the model's own forward of each row alone."""

    @property
    def name(self) -> str:
        """The name in manifests and logs."""
        ...

    @property
    def hiding(self) -> str | None:
        """How image tokens are hidden: "left out" or "masked"; None if they cannot be."""
        ...

    @property
    def head(self) -> str:
        """How logits follow from hidden states: "" by head and soft cap, or as `models.head.find_head` found."""
        ...

    @property
    def routes_tokens(self) -> bool:
        """Whether adapters can be routed by token (`models.routing`), which needs the engine's own attention."""
        ...

    def scores(self, vlm: Any, rows: Sequence[Any], *, entropy: bool = False) -> TokenScores:
        """Log-probs of all answer tokens of the rows, in order, and with `entropy` their entropies; differentiable."""
        ...

    def states(self, vlm: Any, rows: Sequence[Any], *, logps: bool = False) -> AnswerStates:
        """Hidden states around all answers and, with `logps`, log-probs of their tokens; differentiable."""
        ...

    def logits(self, vlm: Any, rows: Sequence[Any]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
        """Yield the logits (float32) that predict each answer token of the rows, in order, in parts."""
        ...

    def start(self, vlm: Any, continuations: Sequence[Any], new_tokens: int) -> Decoding:
        """Compute the continuations (`models.packing.Continuation`) up to their last tokens; no gradients."""
        ...
