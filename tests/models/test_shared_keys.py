"""Prefixes kept once for all rows that share them: the same numbers as with a copy for every row, and fewer bytes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline.models import sampler
from sightline.models.attention import AttentionSettings, PackedLayout, Prefill, RunningRows
from sightline.models.encoding import encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.packing import Packed, Span
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import choose_tokens, generate
from sightline.models.ways import packed as packed_way
from tests.models.families import FAMILIES, family_params

ALWAYS, NEVER = -(2**62), 2**62


def packed_of(spans: list[tuple[int, tuple[int, ...], tuple[int, ...]]], device: str = "cpu") -> Packed:
    """Rows of the given prefix lengths, answer lengths and branches."""
    laid, order, start = [], [], 0
    for prefix, answers, branches in spans:
        longest = max(prefix, *(b + a for a, b in zip(answers, branches, strict=True))) - 1
        laid.append(Span(start, prefix, answers, branches, longest))
        order += [*range(prefix), *(b + i for a, b in zip(answers, branches, strict=True) for i in range(a))]
        start = laid[-1].whole.stop
    ids = torch.zeros(len(order), dtype=torch.long, device=device)
    return Packed(
        ids=ids,
        is_image=ids > 0,
        members=torch.full((len(order),), -1),
        positions=torch.tensor([order], device=device),
        order=torch.tensor(order, device=device),
        blocks=None,
        blocks_over_window=False,
        spans=tuple(laid),
        images=(),
        shown=(),
    )


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_layer_gives_what_copies_give(window: int | None, softcap: float | None) -> None:
    packed = packed_of([(9, (0, 2, 3), (9, 9, 5)), (4, (1,), (4,)), (7, (0,), (7,))])
    copies = [3, 1, 2, 1, 1]
    settings = AttentionSettings(None, 0.0, window, softcap)
    draw = torch.Generator().manual_seed(1)

    def states(heads: int, rows: int, tokens: int) -> Tensor:
        return torch.randn(rows, heads, tokens, 8, generator=draw)

    both = [RunningRows.of(packed, copies, 2, share=share) for share in (False, True)]
    query, key, value = states(4, 1, len(packed.ids)), states(2, 1, len(packed.ids)), states(2, 1, len(packed.ids))
    for rows in both:
        Prefill(PackedLayout(packed), rows).attend(0, query, key, value, settings)
    assert torch.equal(both[0].last, both[1].last)
    places = [rows.last_positions(packed.positions) for rows in both]
    assert torch.equal(places[0], places[1])
    for step in range(6):
        count = len(both[0].host_lengths)
        now = states(4, count, 1), states(2, count, 1), states(2, count, 1)
        copied, shared = (rows.attend(0, *now, settings) for rows in both)
        torch.testing.assert_close(shared, copied, rtol=1e-6, atol=1e-6)
        for rows in both:
            rows.advance()
            if step in (1, 3):
                rows.select([place for place in range(count) if place not in (1, 4, 6)])
    assert not torch.equal(shared, copied)  # another way of computing it


@pytest.mark.parametrize("name", family_params())
def test_every_family_decodes_the_same(name: str, tmp_path: Path, pictures: list[Path], monkeypatch: Any) -> None:
    vlm = load_vlm(FAMILIES[name](tmp_path / name))
    images = (pictures[0],) if vlm.is_multimodal else ()
    requests = [
        GenerateRequest(Prefix(images, prompt), prefill, hidden, seed)
        for seed, (prompt, prefill, hidden) in enumerate(
            [("How many cows are there?", "", frozenset[int]())] * 3
            + [("How many cows are there?", "There are", frozenset()), ("How many cups?", "A", frozenset())]
            + ([("Describe.", "", frozenset({0, 2}))] * 2 if images else [])
        )
    ]
    steps: dict[int, list[Tensor]] = {}
    for limit in (NEVER, ALWAYS):
        found = steps.setdefault(limit, [])

        def choose(logits: Tensor, uniforms: Tensor, *, found: list[Tensor] = found, **options: Any) -> Tensor:
            found.append(logits)
            return choose_tokens(logits, uniforms, **options)

        monkeypatch.setattr(packed_way, "COPIED_BYTES", limit)
        monkeypatch.setattr(sampler, "choose_tokens", choose)
        steps[limit * 2] = [generate(vlm, requests, Sampling(20, 1.0), batch_size=8)]  # type: ignore[list-item]
    assert steps[NEVER * 2] == steps[ALWAYS * 2]
    assert len(steps[NEVER]) == len(steps[ALWAYS]) > 5
    for copied, shared in zip(steps[NEVER], steps[ALWAYS], strict=True):
        torch.testing.assert_close(shared, copied, rtol=1e-5, atol=2e-5)


def test_64_rows_of_a_7b_keep_one_prefix() -> None:
    packed = packed_of([(2500, (0,), (2500,))], "meta")
    sizes = {}
    for share in (False, True):
        rows = RunningRows.of(packed, [64], 16, share=share)
        states = torch.zeros(1, 32, 2500, 128, device="meta", dtype=torch.bfloat16)
        Prefill(PackedLayout(packed), rows).attend(0, states, states, states, AttentionSettings(None, 0.0, None, None))
        sizes[share] = 32 * rows.bytes()  # all layers are alike
    token = 32 * 2 * 32 * 128 * 2
    assert sizes[False] == 64 * (2500 + 16) * token  # 84 GB
    assert sizes[True] == (2500 + 64 * 16) * token  # 1.8 GB


def test_copies_are_shared_where_they_are_large(vlm: Any, pictures: list[Path], monkeypatch: Any) -> None:
    chosen: list[bool] = []
    plain = RunningRows.of

    def of(*args: Any, share: bool) -> RunningRows:
        chosen.append(share)
        return plain(*args, share=share)

    monkeypatch.setattr(RunningRows, "of", of)
    requests = [GenerateRequest(Prefix((pictures[0],), "Describe."), seed=seed) for seed in range(4)]
    token = 2 * 2 * 2 * 8 * 4  # keys and values x layers x key-value heads x head width x bytes
    prefix = encode_prefix(vlm, requests[0].prefix)
    for limit in (3 * len(prefix.ids) * token, 3 * len(prefix.ids) * token - 1):
        monkeypatch.setattr(packed_way, "COPIED_BYTES", limit)
        generate(vlm, requests, Sampling(2), batch_size=4)
    assert chosen == [False, True]
