"""Steps of fixed shapes in buckets: the same numbers as with growing buffers, and addresses that stay.

The capture as a CUDA graph needs a GPU; what it captures runs here.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline.models import sampler
from sightline.models.graphs import FixedRows, FixedStep, bucket_of
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import choose_tokens, generate
from sightline.models.ways import packed
from tests.models.families import FAMILIES


def test_buckets() -> None:
    assert [bucket_of(rows) for rows in (1, 2, 3, 5, 9, 16, 17, 33, 64)] == [1, 2, 4, 8, 16, 16, 32, 48, 64]


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_5_vl"])
def test_fixed_shapes_give_the_same_numbers(
    name: str, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load_vlm(FAMILIES[name](tmp_path / name))
    vlm.model.generation_config.eos_token_id = list(
        range(8, len(vlm.tokenizer), 14)
    )  # so that rows end at different steps
    requests = [
        GenerateRequest(Prefix((pictures[seed % 2],), "How many cows are there?"), prefill, seed=seed)
        for seed, prefill in enumerate(["", "There are", "", "One", ""])
    ]
    logits: dict[bool, list[Tensor]] = {False: [], True: []}
    found = {}
    for fixed in (False, True):

        def choose(scores: Tensor, uniforms: Tensor, *, fixed: bool = fixed, **options: Any) -> Tensor:
            logits[fixed].append(scores)
            return choose_tokens(scores, uniforms, **options)

        monkeypatch.setattr(sampler, "choose_tokens", choose)
        monkeypatch.setattr(packed, "uses_graphs", lambda *_, fixed=fixed: fixed)
        found[fixed] = generate(vlm, requests, Sampling(24, 1.0), batch_size=8)
    assert found[True] == found[False]
    assert len({generation.tokens for generation in found[True]}) > 1
    for one, other in zip(logits[True], logits[False], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


def test_buffers_are_allocated_once(vlm: Any, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[set[int]] = []
    plain = packed.PackedDecoding._forward

    def run(self: packed.PackedDecoding, tokens: Tensor, positions: Tensor) -> Tensor:
        rows = self.running
        assert isinstance(rows, FixedRows)
        tensors = [rows.lengths, rows.orders, tokens, *(one for pair in rows.buffers.values() for one in pair)]
        addresses.append({tensor.data_ptr() for tensor in tensors})
        assert {len(tensor) for tensor in tensors} == {rows.bucket}
        return plain(self, tokens, positions)

    monkeypatch.setattr(packed, "uses_graphs", lambda *_: True)
    monkeypatch.setattr(packed.PackedDecoding, "_forward", run)
    requests = [GenerateRequest(Prefix((pictures[0],), "How many?"), seed=seed) for seed in range(4)]
    generate(vlm, requests, Sampling(20), batch_size=4)
    assert len(addresses) == 19
    assert all(each == addresses[0] for each in addresses)


def test_a_failed_capture_falls_back_with_a_line(
    vlm: Any, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [GenerateRequest(Prefix((pictures[0],), "How many?"), seed=seed) for seed in range(2)]
    expected = generate(vlm, requests, Sampling(20, 1.0), batch_size=2)
    monkeypatch.setattr(packed, "uses_graphs", lambda *_: True)
    plain = FixedStep.__init__

    def init(self: FixedStep, *args: Any) -> None:
        plain(self, *args)
        self._captures = True  # there is no GPU: torch refuses

    monkeypatch.setattr(FixedStep, "__init__", init)
    assert generate(vlm, requests, Sampling(20, 1.0), batch_size=2) == expected
    assert [record.message for record in caplog.records if "without CUDA graphs" in record.message]
