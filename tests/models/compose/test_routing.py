"""LoRA by token against a slow reference that applies adapters token by token: values, gradients, samples."""

from pathlib import Path

import pytest
import torch

from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora, merge_and_save, reference_mode, save_adapter
from sightline.models.compat import set_activation_checkpointing
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.families.base import MODALITY
from sightline.models.loading import load_vlm, weights_hash
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.routing import TEXT
from sightline.models.sampler import generate
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from tests.models.compose.siblings import save_moved
from tests.models.compose.slow import SlowLora, SlowModel

SETTINGS = LoraSettings(rank=4, alpha=8.0, decoupled=True)
ANSWERS = ("A red cup.", "A blue plate on the table.")
WEIGHTS = torch.tensor([[1.0, -0.5], [0.25, 2.0], [-1.0, 1.0]])


@pytest.fixture(scope="module")
def adapter(eye: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_moved(eye, tmp_path_factory.mktemp("decoupled"), 3, SETTINGS)


@pytest.fixture
def vlm(eye: Path, adapter: Path) -> VLM:
    return load_vlm(eye, adapter=adapter)


@pytest.fixture
def items(shown: list[Path]) -> list[ScoreRequest]:
    """Two with a picture, one without."""
    prefixes = [Prefix((shown[0],), "Describe."), Prefix((shown[1],), "What?"), Prefix((), "Is there a cup?")]
    return [ScoreRequest(prefix, ANSWERS) for prefix in prefixes]


def slow_logps(vlm: VLM, slow: SlowModel, items: list[ScoreRequest]) -> torch.Tensor:
    rows = []
    for item in items:
        for answer in item.answers:
            row = encode_answer(vlm, encode_prefix(vlm, item.prefix), answer)
            names = [MODALITY if token == vlm.image_token_id else TEXT for token in row.ids]
            pixels = row.images.tensors.get("pixel_values")
            features = None if pixels is None else slow.features(pixels)
            rows.append(slow.logp(row.ids, vlm.image_token_id, features, names, row.start))
    return torch.stack(rows).view(len(items), -1)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_values_and_gradients_are_those_of_each_lora_token_by_token(
    vlm: VLM, eye: Path, adapter: Path, items: list[ScoreRequest], checkpointing: bool
) -> None:
    if checkpointing:
        set_activation_checkpointing(vlm.base, enabled=True)
        vlm.model.train()
    weights = {name: weight for name, weight in vlm.model.named_parameters() if ".lora_" in name}
    for weight in weights.values():
        weight.requires_grad_(True)
    fast = answer_logps(vlm, items).sums()
    # Another pass in between: layers recomputed for the gradient must not use its tokens.
    answer_logps(vlm, items[2:])
    (fast * WEIGHTS).sum().backward()

    loras = {TEXT: SlowLora.read(adapter), MODALITY: SlowLora.read(adapter / MODALITY)}
    slow = slow_logps(vlm, SlowModel(eye, loras), items)
    torch.testing.assert_close(fast.double(), slow, rtol=1e-5, atol=1e-5)
    (slow * WEIGHTS).sum().backward()
    seen = 0
    for name, lora in loras.items():
        for layer, leaves in lora.layers.items():
            for half, leaf in zip("AB", leaves, strict=True):
                own = weights[f"base_model.model.model.language_model.{layer}.lora_{half}.{name}.weight"]
                assert own.grad is not None and leaf.grad is not None
                close = 1e-4 * leaf.grad.abs().max().item()
                torch.testing.assert_close(own.grad.double(), leaf.grad, rtol=1e-3, atol=close)
                seen += 1
    assert seen == len(weights) == 2 * 2 * 2 * 7  # adapters, halves, layers, linear layers in each


def test_samples_are_those_of_a_whole_pass_for_every_token(
    vlm: VLM, eye: Path, adapter: Path, items: list[ScoreRequest]
) -> None:
    requests = [GenerateRequest(item.prefix) for item in items]
    generations = generate(vlm, requests, Sampling(6), batch_size=3)
    loras = {TEXT: SlowLora.read(adapter), MODALITY: SlowLora.read(adapter / MODALITY)}
    slow = SlowModel(eye, loras)
    for item, generation in zip(items, generations, strict=True):
        prefix = encode_prefix(vlm, item.prefix)
        pixels = prefix.images.tensors.get("pixel_values")
        features = None if pixels is None else slow.features(pixels)
        for place, token_id in enumerate(generation.ids):
            ids = (*prefix.ids, *generation.ids[:place])
            names = [MODALITY if token == vlm.image_token_id else TEXT for token in ids]
            scored = [
                slow.logp((*ids, token), vlm.image_token_id, features, [*names, TEXT], len(ids)).item()
                for token in (token_id, (token_id + 1) % 300, (token_id + 57) % 300)
            ]
            assert scored[0] > max(scored[1:])


def test_equal_adapters_make_routing_change_nothing(eye: Path, tmp_path: Path, items: list[ScoreRequest]) -> None:
    plain = save_moved(eye, tmp_path / "plain", 5, LoraSettings(rank=4, alpha=8.0))
    save_adapter(load_vlm(eye, adapter=plain), tmp_path / "both")
    save_adapter(load_vlm(eye, adapter=plain), tmp_path / "both" / MODALITY)
    one, two = load_vlm(eye, adapter=plain), load_vlm(eye, adapter=tmp_path / "both")
    with torch.no_grad():
        expected = answer_logps(one, items).sums()
        torch.testing.assert_close(answer_logps(two, items).sums(), expected, rtol=1e-5, atol=1e-5)
    requests = [GenerateRequest(item.prefix) for item in items]
    assert generate(two, requests, Sampling(8), batch_size=2) == generate(one, requests, Sampling(8), batch_size=2)


def test_a_fresh_pair_of_adapters_changes_nothing_and_the_reference_is_the_bare_model(
    eye: Path, adapter: Path, items: list[ScoreRequest]
) -> None:
    with torch.no_grad():
        bare = answer_logps(load_vlm(eye), items).sums()
        fresh = add_lora(load_vlm(eye), SETTINGS, seed=1)
        torch.testing.assert_close(answer_logps(fresh, items).sums(), bare, rtol=1e-5, atol=1e-5)
        moved = load_vlm(eye, adapter=adapter)
        assert (answer_logps(moved, items).sums() - bare).abs().min() > 0.1
        with reference_mode(moved):
            torch.testing.assert_close(answer_logps(moved, items).sums(), bare, rtol=1e-5, atol=1e-5)
    trained = {name for name, weight in fresh.model.named_parameters() if weight.requires_grad}
    with reference_mode(fresh):
        pass
    assert {name for name, weight in fresh.model.named_parameters() if weight.requires_grad} == trained
    assert len(trained) == 2 * 2 * 2 * 7


def test_it_is_saved_and_opened_as_pefts_folders(vlm: VLM, eye: Path, adapter: Path, tmp_path: Path) -> None:
    save_adapter(vlm, tmp_path)
    assert (tmp_path / "adapter_config.json").is_file() and (tmp_path / MODALITY / "adapter_config.json").is_file()
    before = weights_hash(adapter)
    again = load_vlm(eye, adapter=tmp_path)
    for (name, one), (other, two) in zip(vlm.model.named_parameters(), again.model.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(one, two)
    moved = save_moved(eye, tmp_path / "other", 4, SETTINGS)
    (moved / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    assert weights_hash(moved) != before  # the part for images counts too


def test_what_cannot_be_is_refused(vlm: VLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be merged"):
        merge_and_save(vlm, tmp_path)
    with pytest.raises(ValueError, match="Sightline's engine"):
        vlm.model(input_ids=torch.tensor([[5, 6, 7]]))
