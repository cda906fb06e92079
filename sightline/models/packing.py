"""Packing the rows of a forward pass into one sequence without padding: each prefix once, followed by its answers.

An answer attends to itself and to its prefix, or to the part of the prefix that it branches from, and its positions
continue from there. Hidden image tokens are dropped and all others keep their positions: for the tokens that are not
hidden this equals masking the hidden keys. `attention` keeps the rows apart; `share_prefixes` finds common prefixes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from sightline.models.device import to_device
from sightline.models.encoding import EncodedImages, EncodedPrefix
from sightline.models.vlm import VLM

Ids = tuple[int, ...]


@dataclass(frozen=True)
class PackRow:
    """A prefix with the ids of its answers, which do not see each other; `hidden` numbers image tokens of the prefix.

    `prefill` continues the prefix for all answers. `branches[i]` is the number of tokens of prefix and `prefill`,
    hidden ones included, that answer i continues: all by default, and at least those up to the last image token.
    """

    prefix: EncodedPrefix
    answers: tuple[Ids, ...]
    hidden: frozenset[int] = frozenset()
    prefill: Ids = ()
    branches: tuple[int, ...] = ()


@dataclass(frozen=True)
class Span:
    """The position of a row in the sequence: `prefix` tokens from `start`, then answers of the given lengths.

    Answer i continues the first `branches[i]` tokens of the prefix, hidden ones not counted. `longest` is the largest
    `Packed.order` of its tokens.
    """

    start: int
    prefix: int
    answers: tuple[int, ...]
    branches: tuple[int, ...]
    longest: int

    @cached_property
    def shared(self) -> slice:
        """The prefix."""
        return slice(self.start, self.start + self.prefix)

    @cached_property
    def own(self) -> slice:
        """All answers."""
        return slice(self.shared.stop, self.shared.stop + sum(self.answers))

    @cached_property
    def whole(self) -> slice:
        """Prefix and answers."""
        return slice(self.start, self.own.stop)

    def rows(self) -> Iterator[Int[Tensor, "token"]]:
        """For each answer, the places of all tokens visible to its last one, itself included."""
        end = self.own.start
        for branch, length in zip(self.branches, self.answers, strict=True):
            end += length
            yield torch.cat([torch.arange(self.start, self.start + branch), torch.arange(end - length, end)])


@dataclass(frozen=True)
class Packed:
    """The packed sequence. `order` is a token's index in its own row of prefix and answer, hidden tokens included
    if the family counts them (`ModelFamily.counts_hidden`).

    `members` is `ModelFamily.members` of image tokens and -1 of all others. `is_image` is False in answers: an image
    token that a policy generates is text. `masks` has, for a kind of layer ("" for all) and each span, which of its
    prefix's first tokens see which, and None where these are causal or a sliding window; `kinds` is the kind of each
    layer. `members` and `shown` are on the host, all other tensors on the device.
    """

    ids: Int[Tensor, "token"]
    is_image: Bool[Tensor, "token"]
    members: Int[Tensor, "token"]
    positions: Int[Tensor, "axis token"]
    order: Int[Tensor, "token"]
    blocks: Int[Tensor, "token"] | None
    blocks_over_window: bool
    spans: tuple[Span, ...]
    images: tuple[EncodedImages, ...]
    shown: tuple[Bool[Tensor, "feature"] | None, ...]
    masks: Mapping[str, tuple[Bool[Tensor, "token token"] | None, ...]] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()

    def kind(self, layer: int) -> str:
        """The key of `masks` for a layer."""
        return self.kinds[layer] if "" not in self.masks and layer < len(self.kinds) else ""

    def predictor_places(self) -> Int[Tensor, "answer_token"]:
        """For each answer token, in order, the place of the token before it, whose state predicts it."""
        places: list[Tensor] = []
        for span in self.spans:
            start = span.own.start
            for branch, length in zip(span.branches, span.answers, strict=True):
                before = torch.arange(start - 1, start + length - 1)
                before[:1] = span.start + branch - 1
                places.append(before)
                start += length
        return to_device(torch.cat(places), self.ids.device)

    def last_places(self) -> Int[Tensor, "answer"]:
        """The places of all answers' last tokens, in order."""
        lengths = [torch.tensor(span.answers, dtype=torch.long) for span in self.spans]
        places = [length.cumsum(0) + span.own.start - 1 for length, span in zip(lengths, self.spans, strict=True)]
        return to_device(torch.cat(places), self.ids.device)

    def answer_ids(self) -> Int[Tensor, "answer_token"]:
        """The ids of all answer tokens, in order."""
        return torch.cat([self.ids[span.own] for span in self.spans])


@dataclass(frozen=True)
class Placement:
    """Positions of a prefix, and its `Packed.masks` by kind of layer."""

    positions: Int[Tensor, "axis token"]
    masks: Mapping[str, Bool[Tensor, "token token"]]


def pack(vlm: VLM, rows: Sequence[PackRow], placements: Sequence[Placement] | None = None) -> Packed:
    """Pack the rows into one sequence; without `placements`, positions and blocks are those of the family."""
    ids: list[Tensor] = []
    image: list[Tensor] = []
    members: list[Tensor] = []
    positions: list[Tensor] = []
    order: list[Tensor] = []
    blocks: list[Tensor] = []
    spans: list[Span] = []
    shown: list[Tensor | None] = []
    start = 0
    masks: dict[str, list[Tensor | None]] = {kind: [] for one in placements or () for kind in one.masks}
    for number, row in enumerate(rows):
        row_ids = torch.tensor((*row.prefix.ids, *row.prefill))
        is_image = row_ids == vlm.image_token_id
        kept = _visible(is_image, row.hidden)
        placement = None if placements is None else placements[number]
        places, block = _positions_and_blocks(vlm, row, placement)
        for kind, masks_of_kind in masks.items():
            mask = None if placement is None else placement.masks.get(kind)
            seen_from = kept[: len(row.prefix.ids)].to(vlm.device)
            masks_of_kind.append(None if mask is None else mask[seen_from][:, seen_from])
        ids.append(row_ids[kept])
        image.append(is_image[kept])
        members.append(_members(vlm, row, is_image)[kept])
        positions.append(places[:, kept])
        counted = torch.ones_like(kept) if vlm.family.counts_hidden else kept
        index = counted.cumsum(0)
        order.append(index[kept] - 1)
        blocks.append(block[kept])
        branches = row.branches or (len(row_ids),) * len(row.answers)
        for branch, answer in zip(branches, row.answers, strict=True):
            more = torch.arange(len(answer))
            ids.append(torch.tensor(answer, dtype=torch.long))
            image.append(torch.zeros(len(answer), dtype=torch.bool))
            members.append(torch.full((len(answer),), -1))
            positions.append((places[:, :branch].max() + 1 + more).expand(len(places), -1))
            order.append(index[branch - 1] + more)
            blocks.append(torch.full((len(answer),), -1))
        seen = kept.cumsum(0)
        lengths = tuple(len(answer) for answer in row.answers)
        longest = max(int(each[-1]) for each in order[-1 - len(lengths) :] if len(each))
        spans.append(Span(start, int(seen[-1]), lengths, tuple(int(seen[n - 1]) for n in branches), longest))
        shown.append(kept[is_image] if row.hidden else None)
        start = spans[-1].whole.stop
    block_numbers = torch.cat(blocks)
    return Packed(
        ids=to_device(torch.cat(ids), vlm.device),
        is_image=to_device(torch.cat(image), vlm.device),
        members=torch.cat(members),
        positions=to_device(torch.cat(positions, dim=1), vlm.device),
        order=to_device(torch.cat(order), vlm.device),
        blocks=to_device(block_numbers, vlm.device) if bool((block_numbers >= 0).any()) else None,
        blocks_over_window=vlm.family.blocks_over_window,
        spans=tuple(spans),
        images=tuple(row.prefix.images for row in rows),
        shown=tuple(shown),
        masks={kind: tuple(each) for kind, each in masks.items()},
        kinds=tuple(getattr(vlm.base.config.get_text_config(), "layer_types", None) or ()) if masks else (),
    )


def _positions_and_blocks(
    vlm: VLM, row: PackRow, placement: Placement | None
) -> tuple[Int[Tensor, "axis token"], Int[Tensor, "token"]]:
    """Positions and blocks of prefix and prefill."""
    ids = torch.tensor(row.prefix.ids)
    is_image = ids == vlm.image_token_id
    if placement is None:
        places = vlm.family.positions(vlm.base, ids, is_image, row.prefix.images.tensors).cpu()
        block = vlm.family.blocks(ids, is_image)
    else:
        places, block = placement.positions.cpu(), None
    block = torch.full((len(ids),), -1) if block is None else block
    prefill = torch.arange(len(row.prefill))
    more = (places.max() + 1 + prefill).expand(len(places), -1)
    return torch.cat([places, more], dim=1), torch.cat([block, torch.full_like(prefill, -1)])


def _members(vlm: VLM, row: PackRow, is_image: Bool[Tensor, "token"]) -> Int[Tensor, "token"]:
    """Members (`Packed.members`) of prefix and prefill."""
    numbers = torch.full_like(is_image, -1, dtype=torch.long)
    numbers[is_image] = vlm.family.members(int(is_image.sum()), row.prefix.images.tensors)
    return numbers


def _visible(is_image: Bool[Tensor, "token"], hidden: frozenset[int]) -> Bool[Tensor, "token"]:
    if not hidden:
        return torch.ones_like(is_image)
    number = is_image.cumsum(0) - 1
    return ~(is_image & torch.isin(number, torch.tensor(sorted(hidden))))


@dataclass(frozen=True)
class Continuation:
    """The start of a row to continue: a prefix, its prefill, and the image tokens hidden from it."""

    prefix: EncodedPrefix
    prefill: Ids
    hidden: frozenset[int]

    @cached_property
    def ids(self) -> Ids:
        """All tokens, hidden ones included."""
        return (*self.prefix.ids, *self.prefill)

    @property
    def group(self) -> tuple[Any, ...]:
        """Equal for rows that may share a prefix: those with the same images or, without images, the same prompt."""
        images = self.prefix.images
        return (images.shown if images.paths else self.prefix.ids, self.hidden)


@dataclass(frozen=True)
class SharedPrefix:
    """A row to pack, and for each of its answers the indices of the original rows that equal it."""

    row: PackRow
    members: tuple[tuple[int, ...], ...]


def share_prefixes(
    vlm: VLM, continuations: Sequence[Continuation], *, whole_prefixes: bool = False
) -> list[SharedPrefix]:
    """Turn every row into an answer, possibly empty, to the longest row of its group.

    A row branches after the longest common prefix. If a family lets tokens see later ones, such a block must not be
    cut; a row that would need it is packed separately. With `whole_prefixes` no row branches before its prefix ends.
    """
    groups: dict[tuple[Any, ...], dict[Ids, list[int]]] = {}
    for number, one in enumerate(continuations):
        groups.setdefault(one.group, {}).setdefault(one.ids, []).append(number)
    shared = []
    for group in groups.values():
        left = sorted(group.items(), key=lambda each: len(each[0]), reverse=True)
        while left:
            base = continuations[left[0][1][0]]
            others = [continuations[numbers[0]] for _, numbers in left]
            whole = [other.prefix.ids == base.prefix.ids or not whole_prefixes for other in others]
            cuts = [_cut(vlm, base, other) if fits else 0 for other, fits in zip(others, whole, strict=True)]
            taken = [(ids, cut, tuple(numbers)) for (ids, numbers), cut in zip(left, cuts, strict=True) if cut]
            left = [each for each, cut in zip(left, cuts, strict=True) if not cut]
            answers, branches = tuple(ids[cut:] for ids, cut, _ in taken), tuple(cut for _, cut, _ in taken)
            row = PackRow(base.prefix, answers, base.hidden, base.prefill, branches)
            shared.append(SharedPrefix(row, tuple(numbers for _, _, numbers in taken)))
    return shared


def _cut(vlm: VLM, base: Continuation, other: Continuation) -> int:
    """The number of first tokens that `other` can share with `base`; 0 for none."""
    if other.ids == base.ids and len(other.prefill) == len(base.prefill):
        return len(base.ids)
    cut = common_length(base.ids, other.ids)
    if vlm.image_token_id in base.ids[cut:] or vlm.image_token_id in other.ids[cut:]:
        return 0
    of_base, of_other = _blocks(vlm, base), _blocks(vlm, other)
    whole = cut == len(base.ids) or of_base[cut] < 0 or of_base[cut] != of_base[cut - 1]
    return cut if whole and of_other == [*of_base[:cut], *[-1] * (len(other.ids) - cut)] else 0


def common_length(one: Ids, other: Ids) -> int:
    """The length of the longest common prefix of two rows."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _blocks(vlm: VLM, row: Continuation) -> list[int]:
    """`ModelFamily.blocks` of a row, -1 for tokens outside any block."""
    ids = torch.tensor(row.prefix.ids)
    found = vlm.family.blocks(ids, ids == vlm.image_token_id)
    return [-1] * len(row.ids) if found is None else [*found.tolist(), *[-1] * len(row.prefill)]
