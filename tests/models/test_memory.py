"""Memory: the formula against what autograd keeps, and batches that do not fit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sightline.errors import InputError
from sightline.models import memory, sampler, teacher_forcing
from sightline.models.adapters import LoraSettings, add_lora
from sightline.models.compat import set_activation_checkpointing
from sightline.models.memory import activation_bytes, fitting_tokens, in_parts, is_out_of_memory, missing_bytes
from sightline.models.packing import PackRow
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import generate
from sightline.models.scorer import flat_logps, flat_scores
from sightline.models.teacher_forcing import ForcingRequest, forced_tokens
from sightline.models.vlm import VLM
from sightline.models.ways.packed import PackedDecoding, PackedWay

#: torch's message, word for word.
MESSAGE = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of which 512.00 MiB is "
    "free. Including non-PyTorch memory, this process has 78.60 GiB memory in use."
)


def kept_bytes(vlm: VLM, tokens: int) -> int:
    """The bytes that autograd keeps for the language model's backward pass over one row."""
    storages: dict[int, int] = {}
    weights = {weight.untyped_storage().data_ptr() for weight in vlm.model.parameters()}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    width = vlm.base.config.get_text_config().hidden_size
    states = torch.zeros(1, tokens, width, dtype=vlm.dtype).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        vlm.base.get_decoder()(inputs_embeds=states, use_cache=False).last_hidden_state.sum()
    return sum(storages.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_formula_is_what_autograd_keeps(vlm: VLM, dtype: torch.dtype, checkpointing: bool) -> None:
    vlm = add_lora(replace(vlm, model=vlm.model.to(dtype), dtype=dtype), LoraSettings(2, 2.0))
    vlm.model.train()
    if checkpointing:
        set_activation_checkpointing(vlm.base, enabled=True)
    measured = (kept_bytes(vlm, 128) - kept_bytes(vlm, 64)) / 64
    config = vlm.base.config.get_text_config()
    expected = activation_bytes(vlm, checkpointing=checkpointing)
    if checkpointing:  # the layer that is recomputed is not there yet
        whole = activation_bytes(vlm, checkpointing=False) // config.num_hidden_layers
        expected -= whole
    expected += 4 * config.hidden_size  # the last norm
    assert 0.75 * expected < measured < 1.35 * expected


class Device:
    """Runs out of memory where a pass has more than `most` rows."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    def limit(self, plain: Callable[..., Any], place: int = 1) -> Callable[..., Any]:
        def limited(*args: Any, **options: Any) -> Any:
            rows: Sequence[Any] = args[place]
            self.sizes.append(len(rows))
            if len(rows) > self.most:
                raise torch.OutOfMemoryError(MESSAGE)
            return plain(*args, **options)

        return limited


def test_samples_do_not_depend_on_what_fits(
    vlm: VLM, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    requests = [GenerateRequest(Prefix((path,), "Is there?"), seed=n) for n in range(3) for path in pictures]
    sampling = Sampling(8, 1.0, stop=(".",))
    expected = generate(vlm, requests, sampling, batch_size=8)
    device = Device(3)
    plain = PackedDecoding._forward

    def step(self: PackedDecoding, tokens: Tensor, positions: Tensor) -> Tensor:
        if len(device.sizes) == 2 and len(tokens) == 2:  # and once in the middle of a row
            device.sizes.append(0)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")
        return plain(self, tokens, positions)

    monkeypatch.setattr(PackedDecoding, "_forward", step)
    monkeypatch.setattr(sampler, "_steps", device.limit(sampler._steps))
    done: list[int] = []
    assert generate(vlm, requests, sampling, batch_size=8, progress=done.append) == expected
    assert sum(done) == len(requests)
    assert device.sizes[:2] == [8, 4]
    assert max(device.sizes[2:]) <= 2
    assert "out of memory with 8 rows" in caplog.records[0].message and "continuing with 4" in caplog.records[0].message


def test_one_row_that_does_not_fit_is_an_error_with_remedies(
    vlm: VLM, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "_steps", Device(0).limit(sampler._steps))
    requests = [GenerateRequest(Prefix((path,), "Is there?")) for path in pictures]
    with pytest.raises(InputError, match=r"one row of .* does not fit .*2\.00 GiB are missing.*max_new_tokens"):
        generate(vlm, requests, Sampling(3), batch_size=4)


def test_scores_do_not_depend_on_what_fits(vlm: VLM, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    items = [ScoreRequest(Prefix((path,), "Is there?"), ("Yes.", "No, there is none.")) for path in pictures]
    with torch.no_grad():
        expected, scores = flat_logps(vlm, items), flat_scores(vlm, items)
        device = Device(2)
        monkeypatch.setattr(PackedWay, "scores", device.limit(PackedWay.scores, 2))
        found, again = flat_logps(vlm, items), flat_scores(vlm, items)
    assert device.sizes == [4, 2, 2] * 2
    for one, other in zip((*found, *again), (*expected, *scores), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-5)
    with pytest.raises(torch.OutOfMemoryError):  # with gradients the loop repeats the whole step
        flat_logps(vlm, items)


def test_forced_tokens_do_not_depend_on_what_fits(
    vlm: VLM, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ForcingRequest(Prefix((path,), "Describe."), "A red cup.", seed) for seed, path in enumerate(pictures)]
    expected = forced_tokens(vlm, requests, temperature=1.0, batch_size=4)
    device = Device(1)
    monkeypatch.setattr(teacher_forcing, "_drawn", device.limit(teacher_forcing._drawn))
    assert forced_tokens(vlm, requests, temperature=1.0, batch_size=4) == expected
    assert device.sizes == [4, 2, 1, 1, 1, 1]


def test_other_errors_pass(vlm: VLM) -> None:
    def fail(_: Sequence[Any]) -> None:
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_parts(vlm, [PackRow, PackRow], fail, remedy="")
    assert is_out_of_memory(torch.OutOfMemoryError("x")) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))


def test_missing_memory_is_read_from_torch_s_message() -> None:
    assert missing_bytes(MESSAGE) == 2 * 2**30
    assert missing_bytes("DefaultCPUAllocator: can't allocate memory: you tried to allocate 640 bytes. Error") == 640
    assert missing_bytes("CUDA error: out of memory") is None


def test_tokens_that_fit_follow_from_free_memory(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitting_tokens(vlm, checkpointing=False) is None  # a CPU
    on_gpu = replace(add_lora(vlm, LoraSettings(2, 2.0)), device=torch.device("cuda"))
    trained = sum(weight.numel() for weight in on_gpu.model.parameters() if weight.requires_grad)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10**9, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * 10**8)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10**8)
    for checkpointing in (False, True):
        usable = memory.USABLE * 1.2e9 - 12 * trained
        expected = int(usable) // activation_bytes(on_gpu, checkpointing=checkpointing)
        assert fitting_tokens(on_gpu, checkpointing=checkpointing) == expected > 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (0, 10**10))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 10**8)
    assert fitting_tokens(on_gpu, checkpointing=False) == 0
