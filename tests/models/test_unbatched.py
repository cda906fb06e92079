"""A model type that is not verified for packing is scored and sampled one row at a time, with a warning."""

import logging
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


def test_it_is_scored_row_by_row_and_a_line_says_so(
    unproved: Path, pictures: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        vlm = load_vlm(unproved)
    vlm.model.requires_grad_(True)
    assert "model type 'vipllava' is not verified for packed scoring" in caplog.text
    item = ScoreRequest(Prefix((pictures[0],), "Is there a cup?"), ("Yes.", "No, there is no cup."))
    scored = answer_logps(vlm, [item])
    for k, answer in enumerate(item.answers):
        expected = plain.token_logps(vlm.model, vlm.processor, item.prefix.images, item.prefix.prompt, answer)
        torch.testing.assert_close(scored.values[0, k, : len(expected)].double(), expected, rtol=1e-5, atol=1e-5)
    scored.sums().sum().backward()
    assert vlm.base.model.multi_modal_projector.linear_2.weight.grad.abs().max() > 0


def test_a_head_of_one_number_reads_its_rows_one_by_one(unproved: Path, pictures: list[Path]) -> None:
    vlm = load_vlm(unproved)
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


def test_its_samples_are_transformers_own_and_depend_on_the_seed_alone(unproved: Path, pictures: list[Path]) -> None:
    vlm = load_vlm(unproved)
    prefix = Prefix((pictures[0],), "Describe.")
    greedy = generate(vlm, [GenerateRequest(prefix)], Sampling(8), batch_size=1)[0]
    inputs = plain.inputs_of(vlm.processor, prefix.images, plain.prompt_text(prefix.images, prefix.prompt))
    ids = vlm.model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert greedy.text == vlm.tokenizer.decode(ids, skip_special_tokens=True).strip()

    requests = [GenerateRequest(prefix, seed=seed) for seed in (1, 2, 1)]
    first, second, again = generate(vlm, requests, Sampling(8, 1.0), batch_size=3)
    assert first == again != second


def test_its_image_tokens_cannot_be_hidden(unproved: Path, pictures: list[Path]) -> None:
    request = GenerateRequest(Prefix((pictures[0],), "Describe."), hidden=frozenset({0}))
    with pytest.raises(InputError, match="cannot be hidden"):
        generate(load_vlm(unproved), [request], Sampling(4), batch_size=1)
