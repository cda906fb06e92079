"""LoRA: trainable weights, the reference, and equal log-probs after saving, loading and merging."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora, merge_and_save, reference_mode, save_adapter
from sightline.models.loading import load_vlm, peft_warnings_ignored
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import generate
from sightline.models.scorer import answer_logps
from sightline.models.tensor_cache import TensorCache
from sightline.models.vlm import VLM
from tests.models import plain


def trainable(vlm: VLM) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in vlm.model.named_parameters() if parameter.requires_grad}


def add_perturbed_lora(vlm: VLM, *, train_projector: bool = True) -> VLM:
    """Add an adapter and change its every weight."""
    vlm = add_lora(vlm, LoraSettings(rank=4, alpha=8.0, train_projector=train_projector))
    stir(vlm)
    return vlm


def stir(vlm: VLM) -> None:
    """Change every trainable weight."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(vlm).values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


@pytest.fixture
def items(pictures: list[Path]) -> list[ScoreRequest]:
    return [ScoreRequest(Prefix((pictures[0],), "Describe."), ("A red cup.", "A blue plate on the table."))]


@torch.no_grad()
def score(vlm: VLM, items: list[ScoreRequest]) -> torch.Tensor:
    return answer_logps(vlm, items).sums()


def test_default_targets_are_the_linear_layers_of_the_language_model(vlm: VLM) -> None:
    names = trainable(add_lora(vlm, LoraSettings(rank=4, alpha=8.0)))
    assert len(names) == 2 * 7 * 2  # layers x (q, k, v, o, gate, up, down) x (A, B)
    assert all(".language_model.layers." in name and ".lora_" in name for name in names)
    # rank x (in + out) over q, k, v, o of 32x32, 32x16, 32x16, 32x32 and gate, up, down of 32x64
    assert sum(p.numel() for p in names.values()) == 2 * 4 * (64 + 48 + 48 + 64 + 3 * 96)


def test_targets_can_be_named(vlm: VLM, tiny_directory: Path) -> None:
    by_ending = trainable(add_lora(vlm, LoraSettings(4, 8.0, targets=(r"language_model.layers.0.self_attn.q_proj",))))
    by_pattern = trainable(
        add_lora(load_vlm(tiny_directory), LoraSettings(4, 8.0, targets=r".*\.0\.self_attn\.q_proj"))
    )
    assert len(by_ending) == 2 and by_ending.keys() == by_pattern.keys()  # the vision tower has such layers too


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), r".*\.(q_proj|v_proj)"])
def test_targets_leave_the_vision_tower_frozen_unless_it_is_asked_for(
    tiny_directory: Path, targets: str | tuple[str, ...]
) -> None:
    """Both towers have two layers with q_proj and v_proj: 2 x 2 x (A, B) weights each."""
    names = trainable(add_lora(load_vlm(tiny_directory), LoraSettings(4, 8.0, targets=targets)))
    assert len(names) == 8 and all(".language_model.layers." in name for name in names)
    both = trainable(add_lora(load_vlm(tiny_directory), LoraSettings(4, 8.0, targets=targets, vision_tower=True)))
    assert len(both) == 16 and sum(".vision_tower.encoder.layers." in name for name in both) == 8
    every = trainable(add_lora(load_vlm(tiny_directory), LoraSettings(4, 8.0, train_projector=True, vision_tower=True)))
    # language 2 x 7 and vision 2 x (q, k, v, out, fc1, fc2) layers, A and B; the projector's two layers whole
    assert len(every) == 2 * (2 * 7 + 2 * 6) + 4
    assert sum(".multi_modal_projector.modules_to_save." in name for name in every) == 4


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (
            ("no_such_layer",),
            r"'no_such_layer' matches no module of the language model .*down_proj, gate_proj, k_proj, l",
        ),
        (("q_proj", "qproj"), r"'qproj' matches no module .* q_proj, up_proj, v_proj$"),
        (("fc1",), r"'fc1' matches no module .*set lora\.vision_tower=true"),
        (r".*vision_tower.*\.q_proj", "matches no module"),
        ("(", "is not a regular expression"),
    ],
)
def test_a_target_that_matches_nothing_is_refused_with_the_names_there_are(
    vlm: VLM, targets: str | tuple[str, ...], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        add_lora(vlm, LoraSettings(4, 8.0, targets=targets))
    assert not isinstance(vlm.model, PeftModel)


def test_a_trained_vision_tower_is_in_scores_gradients_and_never_in_a_stale_cache(
    tiny_directory: Path, tmp_path: Path, items: list[ScoreRequest], pictures: list[Path]
) -> None:
    """Scores equal the unbatched forward, adapter on and off, cache cold and warm; gradients reach the adapter."""
    cache = TensorCache(tmp_path / "cache", max_bytes=10**8)
    settings = LoraSettings(4, 8.0, targets=("q_proj", "v_proj"), vision_tower=True)
    vlm = add_lora(load_vlm(tiny_directory, cache=cache), settings, seed=3)
    before = score(load_vlm(tiny_directory), items)
    stir(vlm)
    answer_logps(vlm, items).sums().sum().backward()
    slopes = [weight.grad for name, weight in trainable(vlm).items() if ".vision_tower." in name]
    assert len(slopes) == 8 and all(slope is not None and slope.abs().max() > 0 for slope in slopes)
    expected = score(vlm, items)
    save_adapter(vlm, tmp_path / "adapter")
    opened = load_vlm(tiny_directory, adapter=tmp_path / "adapter", cache=cache)
    for _ in range(2):
        torch.testing.assert_close(score(opened, items), expected, rtol=1e-5, atol=0)
        with reference_mode(opened):
            torch.testing.assert_close(score(opened, items), before, rtol=1e-5, atol=0)
    assert (expected - before).abs().max() > 0.01
    with torch.no_grad():
        tokens = plain.token_logps(vlm.model, vlm.processor, [pictures[0]], "Describe.", "A red cup.")
    assert tokens.sum().item() == pytest.approx(expected[0, 0].item(), rel=1e-5)


def test_a_vision_tower_is_not_trained_by_token_nor_where_there_is_none(vlm: VLM) -> None:
    with pytest.raises(InputError, match=r"lora\.vision_tower cannot be combined with lora\.decoupled"):
        add_lora(vlm, LoraSettings(4, 8.0, decoupled=True, vision_tower=True))


def test_a_fresh_adapter_changes_nothing_and_its_seed_decides_its_weights(
    vlm: VLM, tiny_directory: Path, items: list[ScoreRequest]
) -> None:
    before = score(vlm, items)
    state = torch.random.get_rng_state()
    adapted = add_lora(vlm, LoraSettings(rank=4, alpha=8.0, train_projector=True), seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(score(adapted, items), before, rtol=1e-6, atol=0)
    with reference_mode(adapted):
        torch.testing.assert_close(score(adapted, items), before, rtol=1e-6, atol=0)
    again = trainable(add_lora(load_vlm(tiny_directory), LoraSettings(4, 8.0, train_projector=True), seed=1))
    other = trainable(add_lora(load_vlm(tiny_directory), LoraSettings(4, 8.0, train_projector=True), seed=2))
    assert all(torch.equal(parameter, again[name]) for name, parameter in trainable(adapted).items())
    assert any(not torch.equal(parameter, other[name]) for name, parameter in trainable(adapted).items())


def test_the_reference_is_the_model_without_its_adapter(vlm: VLM, items: list[ScoreRequest]) -> None:
    before = score(vlm, items)
    adapted = add_perturbed_lora(vlm)
    after = score(adapted, items)
    assert (after - before).abs().min() > 0.1
    with reference_mode(adapted):
        torch.testing.assert_close(score(adapted, items), before, rtol=1e-6, atol=0)
    torch.testing.assert_close(score(adapted, items), after, rtol=0, atol=0)
    assert trainable(adapted)


def test_without_an_adapter_there_is_no_reference_to_speak_of(vlm: VLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no adapter"), reference_mode(vlm):
        pass
    with pytest.raises(InputError, match="no adapter"):
        save_adapter(vlm, tmp_path)
    with pytest.raises(InputError, match="already has an adapter"):
        add_lora(add_perturbed_lora(vlm), LoraSettings(rank=4, alpha=8.0))


@pytest.mark.parametrize("train_projector", [False, True])
def test_saved_opened_and_merged_adapters_agree(
    vlm: VLM, tiny_directory: Path, tmp_path: Path, items: list[ScoreRequest], train_projector: bool
) -> None:
    reference = score(vlm, items)
    adapted = add_perturbed_lora(vlm, train_projector=train_projector)
    expected, requests = score(adapted, items), [GenerateRequest(item.prefix) for item in items]
    generations = generate(adapted, requests, Sampling(12), batch_size=1)
    save_adapter(adapted, tmp_path / "adapter")
    merge_and_save(adapted, tmp_path / "merged")
    torch.testing.assert_close(score(adapted, items), expected, rtol=0, atol=0)
    with reference_mode(adapted):
        torch.testing.assert_close(score(adapted, items), reference, rtol=1e-6, atol=0)
    for opened in (load_vlm(tiny_directory, adapter=tmp_path / "adapter"), load_vlm(tmp_path / "merged")):
        torch.testing.assert_close(score(opened, items), expected, rtol=1e-5, atol=0)
        assert generate(opened, requests, Sampling(12), batch_size=1) == generations
        assert not opened.model.training

    base = AutoModelForImageTextToText.from_pretrained(tiny_directory)
    with peft_warnings_ignored():
        model = PeftModel.from_pretrained(base, tmp_path / "adapter")
    prefix = items[0].prefix
    for k, answer in enumerate(items[0].answers):
        logps = plain.token_logps(model, adapted.processor, prefix.images, prefix.prompt, answer)
        assert logps.sum().item() == pytest.approx(expected[0, k].item(), rel=1e-5)


def test_an_adapter_of_another_shape_is_refused(vlm: VLM, tiny_directory: Path, tmp_path: Path) -> None:
    save_adapter(add_perturbed_lora(vlm), tmp_path)
    config = (tmp_path / "adapter_config.json").read_text()
    (tmp_path / "adapter_config.json").write_text(config.replace('"r": 4', '"r": 2'))
    with pytest.raises(InputError, match="does not fit"):
        load_vlm(tiny_directory, adapter=tmp_path)
