"""A model type without an adapter is computed by recordings of its own forward, or one row at a time."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlavaProcessor, VipLlavaConfig, VipLlavaForConditionalGeneration

from sightline.errors import InputError
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import generate
from sightline.models.scalar_head import answer_scores, new_head
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from sightline.models.ways.base import Way
from sightline.models.ways.cached import CachedWay
from sightline.models.ways.row_by_row import RowByRowWay
from tests.models import plain


@pytest.fixture(scope="module")
def unproved(tiny_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VipLLaVA, which is not a family of Sightline, with the parts of the tiny LLaVA."""
    directory = tmp_path_factory.mktemp("vipllava")
    known = load_vlm(tiny_directory)
    config = VipLlavaConfig(
        vision_config=known.base.config.vision_config,
        text_config=known.base.config.text_config,
        image_token_index=known.image_token_id,
        vision_feature_layer=[-1, -2],
    )
    torch.manual_seed(0)
    model = VipLlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = known.tokenizer.eos_token_id
    model.save_pretrained(directory)
    processor = LlavaProcessor.from_pretrained(tiny_directory)
    processor.save_pretrained(directory)
    return directory


WAYS = [None, RowByRowWay(hiding="masked"), CachedWay(hiding="masked")]


def opened(directory: Path, way: Way | None) -> VLM:
    """The model with the way that its proof chose, or with another one."""
    vlm = load_vlm(directory)
    assert vlm.way.name == "recorded"
    return vlm if way is None else replace(vlm, way=way)


def test_a_line_names_its_way_and_the_evidence(
    unproved: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    with caplog.at_level(logging.INFO, "sightline.models.proving"):
        vlm = load_vlm(unproved)
        again = load_vlm(unproved)
    assert caplog.text.count("a 'vipllava' model, computed recorded (log-probs agree to") == 2
    assert vlm.proof == again.proof and vlm.way == again.way
    assert vlm.proof.difference <= 3 * vlm.proof.noise + 1e-5 and vlm.proof.hidden <= 3 * vlm.proof.noise + 1e-5
    assert vlm.proof.image > 1e-3
    assert len(list((tmp_path / "proofs").iterdir())) == 1


@pytest.mark.parametrize("way", WAYS)
def test_its_log_probs_are_those_of_its_own_forward(unproved: Path, pictures: list[Path], way: Way | None) -> None:
    vlm = opened(unproved, way)
    vlm.model.requires_grad_(True)
    item = ScoreRequest(Prefix((pictures[0],), "Is there a cup?"), ("Yes.", "No, there is no cup."))
    scored = answer_logps(vlm, [item])
    for k, answer in enumerate(item.answers):
        expected = plain.token_logps(vlm.model, vlm.processor, item.prefix.images, item.prefix.prompt, answer)
        torch.testing.assert_close(scored.values[0, k, : len(expected)].double(), expected, rtol=1e-5, atol=1e-5)
    scored.sums().sum().backward()
    assert vlm.base.model.multi_modal_projector.linear_2.weight.grad.abs().max() > 0


@pytest.mark.parametrize("way", WAYS)
def test_a_head_of_one_number_reads_its_states(unproved: Path, pictures: list[Path], way: Way | None) -> None:
    vlm = opened(unproved, way)
    head = new_head(vlm)
    torch.manual_seed(1)
    with torch.no_grad():
        head.weight.normal_()
    item = ScoreRequest(Prefix((pictures[0],), "Is there a cup?"), ("Yes.", "No, there is no cup."))
    with torch.no_grad():
        scores = answer_scores(vlm, head, [item])
        for score, answer in zip(scores, item.answers, strict=True):
            text = plain.prompt_text(item.prefix.images, item.prefix.prompt)
            whole = plain.inputs_of(vlm.processor, item.prefix.images, f"{text} {answer}</s>")
            state = vlm.model(**whole, output_hidden_states=True).hidden_states[-1][0, -1]
            torch.testing.assert_close(score, state @ head.weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_its_samples_are_transformers_own_and_depend_on_the_seed_alone(
    unproved: Path, pictures: list[Path], way: Way | None
) -> None:
    vlm = opened(unproved, way)
    prefix = Prefix((pictures[0],), "Describe.")
    greedy = generate(vlm, [GenerateRequest(prefix)], Sampling(8), batch_size=1)[0]
    inputs = plain.inputs_of(vlm.processor, prefix.images, plain.prompt_text(prefix.images, prefix.prompt))
    ids = vlm.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert greedy.text == vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()

    requests = [GenerateRequest(prefix, seed=seed) for seed in (1, 2, 1)]
    first, second, again = generate(vlm, requests, Sampling(8, 1.0), batch_size=3)
    assert first == again != second


@pytest.mark.parametrize("way", WAYS)
def test_hidden_image_tokens_are_masked(unproved: Path, pictures: list[Path], way: Way | None) -> None:
    vlm = opened(unproved, way)
    prefix = Prefix((pictures[0],), "Describe.")
    request = GenerateRequest(prefix, hidden=frozenset({0, 2, 5}))
    (generation,) = generate(vlm, [request], Sampling(6), batch_size=1)
    inputs = plain.inputs_of(vlm.processor, prefix.images, plain.prompt_text(prefix.images, prefix.prompt))
    ids, start = inputs["input_ids"], inputs["input_ids"].shape[1]
    places = (ids[0] == vlm.image_token_id).nonzero()[:, 0][[0, 2, 5]]
    for _ in range(6):
        mask = torch.ones_like(ids)
        mask[0, places] = 0
        positions = torch.arange(ids.shape[1])[None]
        options = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        logits = vlm.model(**{**inputs, **options}).logits
        ids = torch.cat([ids, logits[:, -1:].argmax(-1)], 1)
    assert list(generation.ids) == ids[0, start : start + len(generation.ids)].tolist()


def test_image_tokens_cannot_be_hidden_without_a_proof(unproved: Path, pictures: list[Path]) -> None:
    request = GenerateRequest(Prefix((pictures[0],), "Describe."), hidden=frozenset({0}))
    with pytest.raises(InputError, match="cannot be hidden"):
        generate(replace(load_vlm(unproved), way=RowByRowWay()), [request], Sampling(4), batch_size=1)
