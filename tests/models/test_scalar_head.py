"""The scalar head against unbatched forwards of Transformers' own model, and its files."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora
from sightline.models.requests import GenerateRequest, Prefix, Sampling, ScoreRequest
from sightline.models.sampler import generate
from sightline.models.scalar_head import ScalarHead, answer_scores, has_head, load_head, new_head, save_head
from sightline.models.vlm import VLM
from tests.models import plain

ANSWERS = ("No, there is no spoon.", "Yes.", "A red cup.", "A blue plate stands on the table.")


def items_of(pictures: list[Path]) -> list[ScoreRequest]:
    return [
        ScoreRequest(Prefix((pictures[0],), "Is there a spoon in the image?"), ANSWERS),
        ScoreRequest(Prefix((pictures[1], pictures[2]), "Which differs?"), ANSWERS[::-1]),
        ScoreRequest(Prefix((), "How many cows?"), ANSWERS[1:3]),
    ]


def random_head(vlm: VLM) -> ScalarHead:
    head = new_head(vlm)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(4))
        for name, weight in vlm.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05, generator=torch.Generator().manual_seed(5))
    return head


def by_rows(vlm: VLM, head: ScalarHead, items: list[ScoreRequest]) -> Tensor:
    """The last position's state of each row alone, times the weights."""
    scores = []
    for item in items:
        for answer in item.answers:
            text = plain.prompt_text(item.prefix.images, item.prefix.prompt)
            whole = plain.inputs_of(vlm.processor, item.prefix.images, f"{text} {answer}</s>")
            output = vlm.model(**whole, output_hidden_states=True)
            scores.append((output.hidden_states[-1][0, -1] * head.weight).sum())
    return torch.stack(scores)


def test_scores_and_gradients_equal_those_row_by_row(vlm: VLM, pictures: list[Path]) -> None:
    vlm = add_lora(vlm, LoraSettings(rank=4, alpha=8.0))
    head = random_head(vlm)
    items = items_of(pictures)
    weights = {"head": head.weight, **{n: p for n, p in vlm.model.named_parameters() if p.requires_grad}}
    found = answer_scores(vlm, head, items)
    expected = by_rows(vlm, head, items)
    assert found.shape == (10,) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    coefficients = torch.linspace(-1, 1, 10)
    gradients = [torch.autograd.grad((s * coefficients).sum(), list(weights.values())) for s in (found, expected)]
    for name, one, other in zip(weights, *gradients, strict=True):
        scale = other.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_a_new_head_has_no_opinion_and_says_so_in_float32(vlm: VLM, pictures: list[Path]) -> None:
    head = new_head(vlm)
    with torch.no_grad():
        scores = answer_scores(vlm, head, items_of(pictures), autocast=True)
    assert scores.tolist() == [0.0] * 10 and scores.dtype == torch.float32


def test_a_saved_head_comes_back_with_its_bits(vlm: VLM, tmp_path: Path) -> None:
    head = random_head(vlm)
    save_head(head, "reward", tmp_path)
    again = load_head(vlm, "reward", tmp_path)
    assert torch.equal(again.weight, head.weight) and not again.weight.requires_grad
    assert json.loads((tmp_path / "head.json").read_text()) == {"kind": "reward", "dim": 32}
    assert has_head(tmp_path, "reward") and not has_head(tmp_path, "value")


def test_what_is_no_reward_model_is_refused_in_one_sentence(vlm: VLM, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not a reward model: it has no head\.json"):
        load_head(vlm, "reward", tmp_path)
    save_head(new_head(vlm), "value", tmp_path)
    with pytest.raises(InputError, match="is not a reward model"):
        load_head(vlm, "reward", tmp_path)
    save_head(ScalarHead(7), "reward", tmp_path)
    with pytest.raises(InputError, match=r"hidden states of size 7 and .* has 32"):
        load_head(vlm, "reward", tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match="cannot be read"):
        load_head(vlm, "reward", tmp_path)


def test_the_sampler_gives_the_tokens_it_drew(vlm: VLM, pictures: list[Path]) -> None:
    """Tokenizing the text of most random rows gives other tokens; the ids are the sampled ones."""
    requests = [GenerateRequest(Prefix((pictures[0],), "Describe."), seed=seed) for seed in range(8)]
    generations = generate(vlm, requests, Sampling(12, temperature=1.0), batch_size=8)
    for one in generations:
        assert len(one.ids) == one.tokens
        assert one.finished == (one.ids[-1] in vlm.end_ids)
        kept = one.ids[:-1] if one.finished else one.ids
        text = vlm.tokenizer.decode(kept, skip_special_tokens=True)
        assert text.removeprefix(" ") == one.text or "\ufffd" in text
    again = [vlm.tokenizer(one.text, add_special_tokens=False)["input_ids"] for one in generations]
    assert any(tuple(ids) != one.ids[: len(ids)] for ids, one in zip(again, generations, strict=True))
