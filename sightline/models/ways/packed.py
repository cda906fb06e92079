"""Packed rows: each prefix is computed once for all of its answers, by the adapter of the model's family."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from sightline.models.attention import PackedLayout, Prefill, RunningRows, decoder_arguments
from sightline.models.head import head_logits, token_logps, token_scores
from sightline.models.packing import Continuation, PackRow, pack, share_prefixes
from sightline.models.scorer import hidden_states
from sightline.models.vlm import VLM
from sightline.models.ways.base import AnswerStates, TokenScores

#: Answer tokens whose logits are in memory at a time; sampling makes a few float64 copies of them.
CHUNK = 64
#: Initial capacity, in new tokens, of the key-value buffers.
ROOM = 16


@dataclass(frozen=True)
class PackedWay:
    """Packed rows by a listed family's adapter."""

    name: str = "packed"
    hiding: str | None = "left out"
    routes_tokens: bool = True

    def scores(self, vlm: VLM, rows: Sequence[PackRow], *, entropy: bool = False) -> TokenScores:
        """As `Way.scores`; the head runs on answer tokens only."""
        packed = pack(vlm, rows)
        hidden = hidden_states(vlm, packed, PackedLayout(packed))
        return token_scores(vlm, hidden[packed.predictor_places()], packed.answer_ids(), entropy=entropy)

    def states(self, vlm: VLM, rows: Sequence[PackRow], *, logps: bool = False) -> AnswerStates:
        """As `Way.states`."""
        packed = pack(vlm, rows)
        hidden = hidden_states(vlm, packed, PackedLayout(packed))
        before = hidden[packed.predictor_places()]
        return AnswerStates(
            before, hidden[packed.last_places()], token_logps(vlm, before, packed.answer_ids()) if logps else None
        )

    def logits(self, vlm: VLM, rows: Sequence[PackRow]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
        """As `Way.logits`."""
        packed = pack(vlm, rows)
        hidden = hidden_states(vlm, packed, PackedLayout(packed))
        for some in hidden[packed.predictor_places()].split(CHUNK):
            yield head_logits(vlm, some).float()

    def start(self, vlm: VLM, continuations: Sequence[Continuation], new_tokens: int) -> "PackedDecoding":
        """As `Way.start`; common prefixes are computed once."""
        shared = share_prefixes(vlm, continuations)
        members = [numbers for each in shared for numbers in each.members]
        packed = pack(vlm, [each.row for each in shared])
        running = RunningRows.of(packed, [len(numbers) for numbers in members], min(new_tokens, ROOM))
        hidden = hidden_states(vlm, packed, Prefill(PackedLayout(packed), running))
        order = [number for numbers in members for number in numbers]
        return PackedDecoding(vlm, order, running, hidden[running.last], running.last_positions(packed.positions))


@dataclass
class PackedDecoding:
    """Rows with key-value buffers; `last` is the state of each row's last token, `positions` its largest position."""

    vlm: VLM
    order: list[int]
    running: RunningRows
    last: Float[Tensor, "row dim"]
    positions: Int[Tensor, "row"]

    @property
    def logits(self) -> Float[Tensor, "row vocab"]:
        """The logits of the next tokens."""
        return head_logits(self.vlm, self.last).float()

    def step(self, tokens: Int[Tensor, "row"]) -> None:
        """Run the language model for one more token of each row."""
        vlm, self.positions = self.vlm, self.positions + 1
        output = vlm.base.get_decoder()(
            inputs_embeds=vlm.base.get_input_embeddings()(tokens)[:, None],
            position_ids=vlm.family.decoder_positions(self.positions.expand(vlm.family.axes, -1)[:, :, None]),
            **decoder_arguments(vlm.base, self.running),
        )
        self.running.advance()
        self.last = output.last_hidden_state[:, 0]

    def select(self, rows: Int[Tensor, "kept"]) -> None:
        """Keep only these rows; copies their keys and values."""
        self.running.select(rows)
        self.positions = self.positions[rows]
