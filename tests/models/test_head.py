"""Log-probs in chunks against the whole matrix of logits: values, gradients, and chunk sizes."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from sightline.models import head
from sightline.models.head import token_entropy, token_logps, token_scores
from sightline.models.vlm import VLM
from sightline.models.ways.packed import PackedWay


class Counting(nn.Linear):
    """A head that records the largest number of rows per call."""

    most = 0

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        self.most = max(self.most, len(hidden))
        return super().forward(hidden)


def vlm_of(layer: nn.Linear, cap: float | None) -> VLM:
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(final_logit_softcapping=cap))
    model = SimpleNamespace(get_output_embeddings=lambda: layer, config=config)
    return VLM(model, None, "", torch.device("cpu"), torch.float64, PackedWay())


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("trained", [False, True])
def test_chunks_equal_the_whole(monkeypatch: pytest.MonkeyPatch, cap: float | None, *, trained: bool) -> None:
    monkeypatch.setattr(head, "CHUNK", 4)
    torch.manual_seed(0)
    layer = Counting(6, 11, bias=False).double().requires_grad_(trained)
    states = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    ids, weights = torch.randint(11, (10,)), torch.randn(10)
    logps = token_logps(vlm_of(layer, cap), states, ids)
    (logps * weights).sum().backward()
    assert layer.most == 4, "the matrix of all logits is never materialized"

    again = states.detach().clone().requires_grad_()
    copy = layer.weight.detach().clone().requires_grad_()
    logits = again @ copy.T
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    expected = -functional.cross_entropy(logits, ids, reduction="none")
    (expected * weights).sum().backward()
    torch.testing.assert_close(logps.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(states.grad, again.grad, rtol=1e-5, atol=1e-6)
    if trained:
        torch.testing.assert_close(layer.weight.grad, copy.grad, rtol=1e-5, atol=1e-6)
    else:
        assert layer.weight.grad is None


def test_without_gradients_there_are_none() -> None:
    layer: Any = Counting(6, 11).requires_grad_(False)
    with torch.no_grad():
        assert not token_logps(vlm_of(layer, None), torch.randn(3, 6), torch.tensor([1, 2, 3])).requires_grad


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("mode", ["frozen", "trained", "no gradient"])
def test_entropy_is_that_of_the_whole_softmax_and_moves_nothing(
    monkeypatch: pytest.MonkeyPatch, cap: float | None, mode: str
) -> None:
    monkeypatch.setattr(head, "CHUNK", 4)
    torch.manual_seed(1)
    layer: Any = Counting(6, 11).double().requires_grad_(mode == "trained")
    states = torch.randn(10, 6, dtype=torch.float64, requires_grad=True)
    ids, found = torch.randint(11, (10,)), []
    with torch.set_grad_enabled(mode != "no gradient"):
        for with_entropy in (True, False):
            layer.most = 0
            logps, entropy = token_scores(vlm_of(layer, cap), states, ids, entropy=with_entropy)
            assert layer.most == 4
            (gradient,) = torch.autograd.grad(logps.sum(), states) if logps.requires_grad else (torch.zeros(0),)
            found.append((logps, entropy, gradient))
    (logps, entropy, gradient), (unbatched_logps, none, plain_gradient) = found
    assert none is None and entropy is not None and not entropy.requires_grad
    logits = layer(states.detach())
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    share_prefixes = logits.softmax(-1)
    torch.testing.assert_close(entropy.double(), -(share_prefixes * share_prefixes.log()).sum(-1), rtol=1e-5, atol=1e-6)
    assert torch.equal(logps, unbatched_logps), "the log-probs are the same bits whether or not it is asked for"
    assert torch.equal(gradient, plain_gradient) and (len(gradient) == 0) is (mode == "no gradient")


def test_entropies_by_hand() -> None:
    """Four equal: log 4; one certain: 0; probabilities 1/2, 1/4, 1/4: 1.5 log 2."""
    off = float("-inf")
    rows = [[3.0, 3.0, 3.0, 3.0], [7.0, off, off, off], [math.log(2), 0.0, 0.0, off]]
    expected = torch.tensor([math.log(4), 0.0, 1.5 * math.log(2)])
    torch.testing.assert_close(token_entropy(torch.tensor(rows)), expected)
