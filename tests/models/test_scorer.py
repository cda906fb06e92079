"""The scorer against the unbatched forward of each row: values, gradients, and independence of the batch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from sightline.models.adapters import LoraSettings, add_lora, reference_mode
from sightline.models.device import uses_bfloat16
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from tests.models import plain

ANSWERS = ("No, there is no spoon.", "Yes.", "A red cup and a blue plate stand on the table, next to a pan.")


def items(pictures: list[Path], count: int = 2) -> list[ScoreRequest]:
    """One image, two images, none; prompts and answers of different lengths."""
    return [
        ScoreRequest(Prefix((pictures[0],), "Is there a spoon in the image?"), ANSWERS[:count]),
        ScoreRequest(Prefix((pictures[1], pictures[2]), "Which differs?"), ANSWERS[::-1][:count]),
        ScoreRequest(Prefix((), "How many cows are there in front of the barn, and how many hens?"), ANSWERS[:count]),
    ]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_equals_the_plain_forward_of_each_row(vlm: VLM, pictures: list[Path], count: int) -> None:
    batch = items(pictures, count)
    scored = answer_logps(vlm, batch)
    assert scored.values.shape[:2] == (3, count)
    for i, item in enumerate(batch):
        for k, answer in enumerate(item.answers):
            expected = plain.token_logps(vlm.model, vlm.processor, item.prefix.images, item.prefix.prompt, answer)
            length = len(expected)
            assert scored.lengths()[i, k] == length
            assert scored.mask[i, k].tolist() == [t < length for t in range(scored.mask.shape[-1])]
            torch.testing.assert_close(scored.values[i, k, :length].double(), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(scored.sums()[i, k].double(), expected.sum(), rtol=1e-5, atol=1e-5)
            assert (scored.values[i, k, length:] == 0).all()


def test_the_last_token_is_the_end_of_turn(vlm: VLM, pictures: list[Path]) -> None:
    item = ScoreRequest(Prefix((pictures[0],), "Is there a cup?"), ("",))
    scored = answer_logps(vlm, [item])
    text = plain.prompt_text(item.prefix.images, item.prefix.prompt)
    logits = vlm.model(**plain.inputs_of(vlm.processor, item.prefix.images, text)).logits[0, -1]
    assert scored.values.shape == (1, 1, 1)
    expected = logits.log_softmax(-1)[vlm.tokenizer.eos_token_id].item()
    assert scored.sums().item() == pytest.approx(expected, rel=1e-5)


def test_neither_partners_nor_order_nor_padding_change_a_value(vlm: VLM, pictures: list[Path]) -> None:
    batch = items(pictures)
    together = answer_logps(vlm, batch).sums()
    alone = torch.cat([answer_logps(vlm, [item]).sums() for item in batch])
    backwards = answer_logps(vlm, batch[::-1]).sums().flip(0)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    torch.testing.assert_close(together, backwards, rtol=1e-5, atol=0)


def test_the_image_matters_and_so_does_the_order_of_two(vlm: VLM, pictures: list[Path]) -> None:
    def score(*images: Path) -> float:
        return answer_logps(vlm, [ScoreRequest(Prefix(images, "Describe."), ("A cup.",))]).sums().item()

    assert abs(score(pictures[0]) - score(pictures[1])) > 0.1
    assert abs(score(pictures[0], pictures[1]) - score(pictures[1], pictures[0])) > 0.1


def test_gradients_of_a_preference_loss_equal_the_plain_two_row_computation(vlm: VLM, pictures: list[Path]) -> None:
    vlm = add_lora(vlm, LoraSettings(rank=4, alpha=8.0, train_projector=True))
    batch = items(pictures)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # A fresh adapter is the identity; policy and reference must differ.
        for parameter in vlm.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    with torch.no_grad(), reference_mode(vlm):
        reference = answer_logps(vlm, batch).sums()
    policy = answer_logps(vlm, batch).sums()
    margins = (policy - reference)[:, 0] - (policy - reference)[:, 1]
    assert margins.abs().min() > 0.01
    loss = -functional.logsigmoid(0.1 * margins).mean()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in vlm.model.named_parameters() if p.grad is not None}
    vlm.model.zero_grad(set_to_none=True)

    plain_loss = torch.zeros((), dtype=torch.float64)
    for item in batch:
        margin = torch.zeros((), dtype=torch.float64)
        for sign, answer in zip((1, -1), item.answers, strict=True):
            arguments = (vlm.processor, item.prefix.images, item.prefix.prompt, answer)
            with torch.no_grad(), vlm.model.disable_adapter():
                base = plain.token_logps(vlm.model, *arguments).sum()
            margin = margin + sign * (plain.token_logps(vlm.model, *arguments).sum() - base)
        plain_loss = plain_loss - functional.logsigmoid(0.1 * margin) / len(batch)
    plain_loss.backward()
    assert loss.item() == pytest.approx(plain_loss.item(), rel=1e-5)
    expected = {name: p.grad for name, p in vlm.model.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected.keys()
    assert any("multi_modal_projector" in name for name in gradients)
    assert not any("vision_tower" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5 * expected[name].abs().max().item())


def test_autocast_is_close_and_its_result_is_float32(
    vlm: VLM, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    exact, cast = (answer_logps(vlm, items(pictures), autocast=autocast) for autocast in (False, True))
    assert cast.values.dtype == torch.float32
    assert not torch.equal(exact.values, cast.values)
    torch.testing.assert_close(exact.sums(), cast.sums(), rtol=0.03, atol=0)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # no units for bfloat16
    assert torch.equal(answer_logps(vlm, items(pictures), autocast=True).values, exact.values)
    assert uses_bfloat16(replace(vlm, dtype=torch.bfloat16), True)  # as its weights are
    assert uses_bfloat16(replace(vlm, device=torch.device("cuda")), True)
    assert not uses_bfloat16(replace(vlm, device=torch.device("cuda")), False)


def test_items_must_have_equally_many_answers(vlm: VLM, pictures: list[Path]) -> None:
    one, two = ScoreRequest(Prefix((), "Why?"), ("A cup.",)), ScoreRequest(Prefix((), "Why?"), ("A cup.", "A pan."))
    for wrong in ([], [one, two], [ScoreRequest(Prefix((), "Why?"), ())]):
        with pytest.raises(ValueError, match="same number of answers"):
            answer_logps(vlm, wrong)
