"""Rows that begin alike share the pass over their beginning: which of a batch hang on which, and from where.

Questions on one picture, the sentences of one answer, and samples of one prompt are such rows. It plans and computes
nothing: the plan is rows for `packing`, which `sampler` runs and goes on from.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from sightline.models.encoding import EncodedPrefix
from sightline.models.packing import Ids, PackRow
from sightline.models.vlm import VLM


@dataclass(frozen=True)
class Told:
    """What a row is continued from: a prefix, what was said behind it, and the image tokens hidden from it."""

    prefix: EncodedPrefix
    said: Ids
    hidden: frozenset[int]

    @cached_property
    def ids(self) -> Ids:
        """All tokens, hidden ones too."""
        return (*self.prefix.ids, *self.said)

    @property
    def alike(self) -> tuple[Any, ...]:
        """Equal for rows that may share a beginning: with the same pictures, or without any the same prompt."""
        images = self.prefix.images
        return (images.shown if images.paths else self.prefix.ids, self.hidden)


@dataclass(frozen=True)
class Shared:
    """A packed row, and for each of its answers the numbers of those rows that are it."""

    row: PackRow
    members: tuple[tuple[int, ...], ...]


def share(vlm: VLM, told: Sequence[Told]) -> list[Shared]:
    """Every row as an answer, maybe of no tokens, on the longest row of those that it is alike to.

    A row goes on from all tokens that it has in common with that one. Where a family lets tokens see others behind
    them, no such block may be cut, and a row that would need that has its own pass.
    """
    groups: dict[tuple[Any, ...], dict[Ids, list[int]]] = {}
    for number, one in enumerate(told):
        groups.setdefault(one.alike, {}).setdefault(one.ids, []).append(number)
    made = []
    for group in groups.values():
        left = sorted(group.items(), key=lambda each: len(each[0]), reverse=True)
        while left:
            base = told[left[0][1][0]]
            cuts = [_cut(vlm, base, told[numbers[0]]) for _, numbers in left]
            taken = [(ids, cut, tuple(numbers)) for (ids, numbers), cut in zip(left, cuts, strict=True) if cut]
            left = [each for each, cut in zip(left, cuts, strict=True) if not cut]
            answers, branches = tuple(ids[cut:] for ids, cut, _ in taken), tuple(cut for _, cut, _ in taken)
            row = PackRow(base.prefix, answers, base.hidden, base.said, branches)
            made.append(Shared(row, tuple(numbers for _, _, numbers in taken)))
    return made


def _cut(vlm: VLM, base: Told, other: Told) -> int:
    """How many of its first tokens `other` takes from `base`; 0 where it cannot."""
    if other.ids == base.ids and len(other.said) == len(base.said):
        return len(base.ids)
    cut = common_length(base.ids, other.ids)
    if vlm.image_token_id in base.ids[cut:] or vlm.image_token_id in other.ids[cut:]:
        return 0
    of_base, of_other = _blocks(vlm, base), _blocks(vlm, other)
    whole = cut == len(base.ids) or of_base[cut] < 0 or of_base[cut] != of_base[cut - 1]
    return cut if whole and of_other == [*of_base[:cut], *[-1] * (len(other.ids) - cut)] else 0


def common_length(one: Ids, other: Ids) -> int:
    """How many tokens two rows have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _blocks(vlm: VLM, told: Told) -> list[int]:
    """`Family.blocks` of a row, -1 for what sees nothing behind it."""
    ids = torch.tensor(told.prefix.ids)
    made = vlm.family.blocks(ids, ids == vlm.image_token_id)
    return [-1] * len(told.ids) if made is None else [*made.tolist(), *[-1] * len(told.said)]
