"""The host waits for the device once in a decoding step, once in a training step, and never in a layer.

The model is on torch's `meta` device, whose tensors have shapes and no values: whatever would make the host wait for a
value raises an error there (`item`, `tolist`, `nonzero`, a boolean index, a copy to the CPU). The one place that may
read values is replaced by a counter.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline.models import sampler, teacher_forcing
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.teacher_forcing import ForcingRequest, forced_tokens
from sightline.models.vlm import VLM
from sightline.models.ways import packed as packed_way
from tests.models.families import FAMILIES

#: Full attention with image tokens, a sliding window, and windows beside full attention with blocks of image tokens.
NAMES = ("llava", "mistral", "gemma3")


def on_meta(vlm: VLM) -> VLM:
    return replace(vlm, model=vlm.model.to("meta"), device=torch.device("meta"))


def reader(counts: list[tuple[int, ...]]) -> Callable[[Tensor], Any]:
    def read(tensor: Tensor) -> Any:
        assert tensor.device.type == "meta"
        counts.append(tuple(tensor.shape))
        return torch.full(tuple(tensor.shape), 7).tolist()

    return read


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_decoding_step_waits_once(
    name: str, share: bool, tmp_path: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    vlm = load_vlm(FAMILIES[name](tmp_path / name))
    images = (pictures[0],) if vlm.is_multimodal else ()
    with pytest.raises((NotImplementedError, RuntimeError)):  # values are out of reach
        torch.zeros(2, device="meta").tolist()
    counts: list[tuple[int, ...]] = []
    monkeypatch.setattr(sampler, "read_values", reader(counts))
    monkeypatch.setattr(packed_way, "COPIED_BYTES", -(2**62) if share else 2**62)
    requests = [GenerateRequest(Prefix(images, "How many cows?"), seed=seed) for seed in range(3)]
    requests.append(GenerateRequest(Prefix(images, "Which cow?"), "A", frozenset({0}) if images else frozenset()))
    found = sampler.generate(on_meta(vlm), requests, Sampling(40, 1.0, 0.9, stop=("zzz",)), batch_size=4)
    assert [generation.tokens for generation in found] == [40] * 4
    assert counts == [(4,)] * 40


def test_forcing_waits_once_a_chunk(vlm: VLM, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[tuple[int, ...]] = []
    monkeypatch.setattr(teacher_forcing, "read_values", reader(counts))
    requests = [ForcingRequest(Prefix((path,), "Describe."), "A red cup.") for path in pictures[:2]]
    assert len(forced_tokens(on_meta(vlm), requests, temperature=1.0, batch_size=2)) == 2
    assert len(counts) == 1
