"""A way for rows up to a length, and single rows by the model's own forward beyond it.

Some layers compute short and long rows differently: indexers that choose among more than so many tokens, chunked
attention, rotary embeddings that depend on the longest position of a pass. A proof with short rows covers short rows.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sightline.models.packing import Continuation, PackRow
from sightline.models.vlm import VLM, decoder_of
from sightline.models.ways.base import AnswerStates, Decoding, TokenScores, Way
from sightline.models.ways.row_by_row import RowByRowDecoding, RowByRowWay

#: Keys of a language model's config that count the tokens beyond which a layer chooses among them.
_CHOICES = re.compile(r"index(er)?_(topk|budget)|attention_chunk_size")
_BLOCKS, _BLOCK = "index_topk_blocks", "index_block_size"


def length_limit(base: Any, *, listed: bool = False) -> int | None:
    """The number of tokens up to which a proof with short rows counts; None for no limit.

    Layers of a `listed` family are proved by the tests, choices among tokens included; its positions depend on the
    config.
    """
    text = base.config.get_text_config()
    settings = text.to_dict()
    limits = [
        limit for limit in (*_rope_limits(text, settings), *([] if listed else _choices(text, settings))) if limit
    ]
    return min(limits, default=None)


def _choices(text: Any, settings: dict[str, Any]) -> list[int]:
    """The numbers of tokens beyond which layers choose among the tokens before."""
    kinds = set(getattr(text, "layer_types", None) or ())
    limits = [value for key, value in settings.items() if _CHOICES.fullmatch(key) and isinstance(value, int)]
    if kinds and all(kind == "full_attention" for kind in kinds):
        limits = [] if "indexer_types" not in settings else limits
    elif isinstance(settings.get(_BLOCKS), int) and isinstance(settings.get(_BLOCK), int):
        limits.append(settings[_BLOCKS] * settings[_BLOCK])
    return limits


def _rope_limits(text: Any, settings: dict[str, Any]) -> Iterator[int]:
    """The lengths beyond which rotary positions depend on the longest row of a pass."""
    rope = settings.get("rope_parameters") or {}
    for one in (rope, *(each for each in rope.values() if isinstance(each, dict))):
        if one.get("rope_type") in ("dynamic", "longrope"):
            yield int(one.get("original_max_position_embeddings") or text.max_position_embeddings)


@dataclass(frozen=True)
class LimitedWay:
    """`short` for rows of at most `limit` tokens with their longest answer, `long` for all others."""

    short: Way
    long: RowByRowWay
    limit: int

    @property
    def name(self) -> str:
        """The name of the way of short rows."""
        return self.short.name

    @property
    def hiding(self) -> str | None:
        """How image tokens are hidden, if both ways can."""
        return self.short.hiding if self.long.hiding else None

    @property
    def head(self) -> str:
        """The head of the way of short rows."""
        return self.short.head

    @property
    def routes_tokens(self) -> bool:
        """False: the model's own forward does not route."""
        return False

    def scores(self, vlm: VLM, rows: Sequence[PackRow], *, entropy: bool = False) -> TokenScores:
        """As `Way.scores`."""
        parts: list[TokenScores] = []
        for way, some in self._parts(rows):
            with self.attention(vlm, way):
                parts.append(way.scores(vlm, some, entropy=entropy))
        entropies = [part.entropy for part in parts if part.entropy is not None]
        return TokenScores(torch.cat([part.logps for part in parts]), torch.cat(entropies) if entropy else None)

    def states(self, vlm: VLM, rows: Sequence[PackRow], *, logps: bool = False) -> AnswerStates:
        """As `Way.states`."""
        parts: list[AnswerStates] = []
        for way, some in self._parts(rows):
            with self.attention(vlm, way):
                parts.append(way.states(vlm, some, logps=logps))
        scores = [part.logps for part in parts if part.logps is not None]
        return AnswerStates(
            torch.cat([part.before for part in parts]),
            torch.cat([part.last for part in parts]),
            torch.cat(scores) if logps else None,
        )

    def logits(self, vlm: VLM, rows: Sequence[PackRow]) -> Iterator[Float[Tensor, "answer_token vocab"]]:
        """As `Way.logits`."""
        for way, some in self._parts(rows):
            with self.attention(vlm, way):
                parts = list(way.logits(vlm, some))
            yield from parts

    def start(self, vlm: VLM, continuations: Sequence[Continuation], new_tokens: int) -> Decoding:
        """As `Way.start`; one long row makes all of the batch single rows."""
        longest = max(len(one.ids) for one in continuations) + new_tokens
        if longest <= self.limit:
            return self.short.start(vlm, continuations, new_tokens)
        return LongDecoding(self, vlm, self.long.start(vlm, continuations, new_tokens))

    def _parts(self, rows: Sequence[PackRow]) -> Iterator[tuple[Way, list[PackRow]]]:
        """Neighboring rows of one way."""
        waiting: list[PackRow] = []
        for row in rows:
            length = len(row.prefix.ids) + len(row.prefill) + max(map(len, row.answers), default=0)
            if length <= self.limit:
                waiting.append(row)
                continue
            if waiting:
                yield self.short, waiting
                waiting = []
            yield self.long, [row]
        if waiting:
            yield self.short, waiting

    @contextlib.contextmanager
    def attention(self, vlm: VLM, way: Way) -> Iterator[None]:
        """Context in which long rows have Transformers' attention: indexers are off under a name unknown to them."""
        config = decoder_of(vlm.base).config
        before = config._attn_implementation
        config._attn_implementation = "sdpa" if way is self.long else before
        try:
            yield
        finally:
            config._attn_implementation = before


@dataclass
class LongDecoding:
    """Decoding of single rows with Transformers' attention."""

    way: LimitedWay
    vlm: VLM
    inner: RowByRowDecoding

    @property
    def order(self) -> list[int]:
        """The order of the rows."""
        return self.inner.order

    @property
    def logits(self) -> Float[Tensor, "row vocab"]:
        """The logits of the next tokens."""
        with self.way.attention(self.vlm, self.way.long):
            return self.inner.logits

    def step(self, tokens: Int[Tensor, "row"]) -> None:
        """Add a token to each row."""
        self.inner.step(tokens)

    def select(self, rows: Sequence[int]) -> Int[Tensor, "kept"]:
        """Keep only these rows."""
        return self.inner.select(rows)
