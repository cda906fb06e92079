"""Packed rows: each prefix is computed once for all of its answers, by the adapter of the model's family."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from sightline.models.attention import AttentionLayout, PackedLayout, Prefill, RunningRows, decoder_arguments
from sightline.models.graphs import FixedRows, FixedStep, uses_graphs
from sightline.models.head import head_logits, token_logps, token_scores
from sightline.models.indexed import INDEXED
from sightline.models.memory import key_value_bytes
from sightline.models.packing import Continuation, Packed, PackRow, SharedPrefix, pack, share_prefixes
from sightline.models.scorer import hidden_states
from sightline.models.vlm import VLM, decoder_of
from sightline.models.ways.base import AnswerStates, TokenScores

#: Answer tokens whose logits are in memory at a time; sampling makes a few float64 copies of them.
CHUNK = 64
#: Bytes of copied prefixes from which rows keep one copy together. Fewer cost little, and copies compute faster.
COPIED_BYTES = 2**28
#: Initial capacity, in new tokens, of the key-value buffers.
ROOM = 16
Forward = Callable[[AttentionLayout], Tensor]


@dataclass(frozen=True)
class PackedWay:
    """Packed rows by a listed family's adapter."""

    name: str = "packed"
    hiding: str | None = "left out"
    routes_tokens: bool = True
    head: str = ""

    def pack(self, vlm: VLM, rows: Sequence[PackRow]) -> tuple[Packed, Forward]:
        """The packed sequence, and the function that computes its last hidden states with a layout."""
        packed = pack(vlm, rows)
        return packed, lambda layout: hidden_states(vlm, packed, layout)

    def share(self, vlm: VLM, continuations: Sequence[Continuation]) -> list[SharedPrefix]:
        """The rows to pack for continuations."""
        return share_prefixes(vlm, continuations)

    def next_inputs(self, vlm: VLM, tokens: Int[Tensor, "row"], positions: Int[Tensor, "row"]) -> dict[str, Any]:
        """The decoder's inputs for one more token of each row, at the given positions on all axes."""
        return {
            "inputs_embeds": vlm.base.get_input_embeddings()(tokens)[:, None],
            "position_ids": vlm.family.decoder_positions(positions.expand(vlm.family.axes, -1)[:, :, None]),
        }

    def scores(self, vlm: VLM, rows: Sequence[PackRow], *, entropy: bool = False) -> TokenScores:
        """As `Way.scores`; the head runs on answer tokens only."""
        packed, forward = self.pack(vlm, rows)
        hidden = forward(PackedLayout(packed))
        return token_scores(vlm, hidden[packed.predictor_places()], packed.answer_ids(), entropy=entropy)

    def states(self, vlm: VLM, rows: Sequence[PackRow], *, logps: bool = False) -> AnswerStates:
        """As `Way.states`."""
        packed, forward = self.pack(vlm, rows)
        hidden = forward(PackedLayout(packed))
        before = hidden[packed.predictor_places()]
        return AnswerStates(
            before, hidden[packed.last_places()], token_logps(vlm, before, packed.answer_ids()) if logps else None
        )

    def logits(self, vlm: VLM, rows: Sequence[PackRow]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
        """As `Way.logits`."""
        packed, forward = self.pack(vlm, rows)
        hidden = forward(PackedLayout(packed))
        for some in hidden[packed.predictor_places()].split(CHUNK):
            yield head_logits(vlm, some).float()

    def start(self, vlm: VLM, continuations: Sequence[Continuation], new_tokens: int) -> "PackedDecoding":
        """As `Way.start`; common prefixes are computed once."""
        shared = self.share(vlm, continuations)
        members = [numbers for each in shared for numbers in each.members]
        packed, forward = self.pack(vlm, [each.row for each in shared])
        copies = [len(numbers) for numbers in members]
        running = RunningRows.of(packed, copies, min(new_tokens, ROOM), share=shares_prefixes(vlm, packed, copies))
        hidden = forward(Prefill(PackedLayout(packed), running))
        order = [number for numbers in members for number in numbers]
        last, positions = hidden[running.last], running.last_positions(packed.positions)
        if self.name == PackedWay.name and uses_graphs(vlm, running, new_tokens):
            running = FixedRows.from_rows(running, new_tokens)
        return PackedDecoding(vlm, self, order, running, last, positions)


def shares_prefixes(vlm: VLM, packed: Packed, copies: Sequence[int]) -> bool:
    """Whether the rows of a span keep one copy of its prefix: where copies would take `COPIED_BYTES` more."""
    if INDEXED in (getattr(vlm.base.config.get_text_config(), "layer_types", None) or ()):
        return False  # these layers see keys by a mask over all tokens of a row
    counts = iter(copies)
    copied = -sum(span.prefix for span in packed.spans)
    copied += sum(branch * next(counts) for span in packed.spans for branch in span.branches)
    return copied * key_value_bytes(vlm) > COPIED_BYTES


@dataclass
class PackedDecoding:
    """Rows with key-value buffers; `last` is the state of each row's last token, `positions` its largest position."""

    vlm: VLM
    way: PackedWay
    order: list[int]
    running: RunningRows
    last: Float[Tensor, "row dim"]
    positions: Int[Tensor, "row"]
    fixed: FixedStep | None = field(init=False)

    def __post_init__(self) -> None:
        rows = self.running
        self.fixed = FixedStep(self.vlm, rows, self._forward) if isinstance(rows, FixedRows) else None

    @property
    def logits(self) -> Float[Tensor, "row vocab"]:
        """The logits of the next tokens."""
        return head_logits(self.vlm, self.last).float()

    def step(self, tokens: Int[Tensor, "row"]) -> None:
        """Run the language model for one more token of each row."""
        self.positions = self.positions + 1
        if self.fixed is not None:
            self.last = self.fixed(tokens, self.positions)
            return
        self.last = self._forward(tokens, self.positions)
        self.running.advance()

    def select(self, rows: Sequence[int]) -> Int[Tensor, "kept"]:
        """Keep only these rows; copies their keys and values."""
        kept = self.running.select(rows)
        self.positions = self.positions[kept]
        return kept

    def _forward(self, tokens: Int[Tensor, "row"], positions: Int[Tensor, "row"]) -> Float[Tensor, "row dim"]:
        """Hidden states after the tokens at these positions."""
        output = decoder_of(self.vlm.base)(
            **self.way.next_inputs(self.vlm, tokens, positions), **decoder_arguments(self.vlm.base, self.running)
        )
        hidden: Tensor = output.last_hidden_state[:, 0]
        return hidden
