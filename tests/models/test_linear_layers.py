"""Layers with a recurrent state, packed and step by step, against the layer on each row alone.

`test_conformance` compares whole hybrid models with their plain forward; these tests are quick.
"""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import Tensor

from sightline.errors import InputError
from sightline.models.adapters import LoraSettings, add_lora
from sightline.models.attention import PackedLayout, Prefill, RunningRows
from sightline.models.compat import set_activation_checkpointing
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.linear_layers import StatefulLayer, packed_outputs, stateful_layers, use_states
from sightline.models.loading import load_vlm
from sightline.models.packing import Packed, PackRow, Span
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.scorer import score_rows
from sightline.models.unbatched import unbatched_logps
from sightline.models.vlm import VLM
from tests.models.families import FAMILIES

#: One family for each kind of layer: gated delta net, short convolution, Mamba-2.
KINDS = ("qwen3_5", "lfm2_vl", "nemotron_h_omni")
#: Two rows: answers of several lengths, empty and of one token, that branch at the end, side by side and early.
SPANS = (Span(0, 70, (5, 0, 1, 3, 1), (70, 70, 12, 13, 11), 74), Span(80, 1, (2, 1), (1, 1), 2))
WIDTH = 32


@pytest.fixture(scope="module", params=KINDS)
def vlm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> VLM:
    return load_vlm(FAMILIES[request.param](tmp_path_factory.mktemp(request.param)))


@pytest.fixture
def layer(vlm: VLM) -> StatefulLayer:
    return stateful_layers(vlm.base.get_decoder())[-1]


def packed_of(spans: tuple[Span, ...]) -> Packed:
    """A packed sequence of text, of which layouts read the order alone."""
    tokens = spans[-1].whole.stop
    order = torch.zeros(tokens, dtype=torch.long)
    for span in spans:
        order[span.shared] = torch.arange(span.prefix)
        for branch, places in zip(span.branches, span.rows(), strict=True):
            order[places[branch:]] = branch + torch.arange(len(places) - branch)
    nothing = torch.zeros(tokens, dtype=torch.bool)
    return Packed(order, nothing, order, order[None], order, None, False, spans, (), ())


def hidden_of(spans: tuple[Span, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(1, spans[-1].whole.stop, WIDTH, generator=generator).requires_grad_()


def test_packed_rows_equal_each_row_alone(layer: StatefulLayer) -> None:
    """Outputs and gradients, though pieces of a prefix and answers have one token."""
    hidden = hidden_of(SPANS)
    given = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(4))
    packed = layer(hidden, layout=PackedLayout(packed_of(SPANS)))
    expected = torch.zeros_like(packed)
    with torch.enable_grad():
        for span in SPANS:
            alone = layer(hidden[:, span.shared])
            expected = expected.index_copy(1, torch.arange(span.start, span.start + span.prefix), alone)
            for branch, places in zip(span.branches, span.rows(), strict=True):
                own = layer(hidden[:, places])[:, branch:]
                expected = expected.index_copy(1, places[branch:], own)
    torch.testing.assert_close(packed, expected, rtol=1e-5, atol=1e-5)
    (found,) = torch.autograd.grad((packed * given).sum(), hidden)
    (wanted,) = torch.autograd.grad((expected * given).sum(), hidden)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


def test_steps_continue_each_row_from_its_own_state(layer: StatefulLayer) -> None:
    """Prefill, two copies of an answer, two steps, and a third with some of the rows."""
    packed = packed_of(SPANS)
    running = RunningRows.of(packed, [1, 2, 1, 1, 1, 1, 1], 4)
    answers = [places for span in SPANS for places in span.rows()]
    rows = [answers[number] for number in (0, 1, 1, 2, 3, 4, 5, 6)]
    new = torch.randn(len(rows), 3, WIDTH, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        hidden = hidden_of(SPANS)
        output = layer(hidden, layout=Prefill(PackedLayout(packed), running))
        torch.testing.assert_close(output, layer(hidden, layout=PackedLayout(packed)), rtol=1e-5, atol=1e-5)
        whole = [layer(torch.cat([hidden[:, places], new[None, number]], 1))[0] for number, places in enumerate(rows)]
        expected = torch.stack([each[-3:] for each in whole])
        found = [layer(new[:, step : step + 1], layout=running) for step in range(2)]
        torch.testing.assert_close(torch.cat(found, 1), expected[:, :2], rtol=1e-5, atol=1e-5)
        kept = running.select([6, 2, 3])
        third = layer(new[kept, 2:], layout=running)
    torch.testing.assert_close(third, expected[kept, 2:], rtol=1e-5, atol=1e-5)


def test_a_prefix_passes_a_layer_once(layer: StatefulLayer) -> None:
    lengths = list[tuple[int, int]]()

    def run(rows: Tensor, state: Any) -> Tensor:
        lengths.append((rows.shape[0], rows.shape[1]))
        state.conv[0] = rows.transpose(1, 2)[..., -1:]
        return rows

    hidden = hidden_of(SPANS[:1])[:, :75]
    span = Span(0, 70, (2, 3), (70, 70), 72)
    torch.testing.assert_close(packed_outputs([span], hidden, run), hidden)
    assert lengths == [(1, 70), (2, 3)]


def test_scores_gradients_and_samples_equal_the_plain_ones(vlm: VLM, make_image: Any) -> None:
    """One quick comparison of the whole model, with an adapter on all linear layers and with checkpointing."""
    vlm = add_lora(copy_of(vlm), LoraSettings(rank=2, alpha=4.0))
    generator = torch.Generator().manual_seed(1)
    weights = {name: weight for name, weight in vlm.model.named_parameters() if weight.requires_grad}
    with torch.no_grad():
        for weight in weights.values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    prefix = encode_prefix(vlm, Prefix((make_image("a.png", (56, 40)),), "Is there a spoon?"))
    answers = [encode_answer(vlm, prefix, text) for text in ("No, there is no spoon.", "Yes.")]
    rows = [PackRow(prefix, tuple(answer.ids[answer.start :] for answer in answers))]
    set_activation_checkpointing(vlm.base, enabled=True)
    vlm.model.train()
    packed = score_rows(vlm, rows)
    packed.square().sum().backward()
    gradients = {name: weight.grad for name, weight in weights.items()}
    vlm.model.zero_grad(set_to_none=True)
    vlm.model.eval()
    set_activation_checkpointing(vlm.base, enabled=False)
    plain = unbatched_logps(vlm, rows)
    plain.square().sum().backward()
    torch.testing.assert_close(packed, plain, rtol=1e-5, atol=2e-5)
    for name, weight in weights.items():
        assert weight.grad is not None
        torch.testing.assert_close(gradients[name], weight.grad, rtol=1e-4, atol=1e-4 * float(weight.grad.abs().max()))
    request = GenerateRequest(Prefix((), "Describe."))
    assert generate(vlm, [request, request], Sampling(6), batch_size=2)[0].ids == greedy(vlm, request.prefix, 6)


def greedy(vlm: VLM, prefix: Prefix, count: int) -> tuple[int, ...]:
    """The likeliest tokens, each from a whole forward."""
    ids = list(encode_prefix(vlm, prefix).ids)
    start = len(ids)
    with torch.no_grad():
        while len(ids) - start < count and (len(ids) == start or ids[-1] not in vlm.end_ids):
            whole = torch.tensor([ids])
            ids.append(int(vlm.model(input_ids=whole, use_cache=False).logits[0, -1].argmax()))
    return tuple(ids[start:])


def copy_of(vlm: VLM) -> VLM:
    """A VLM with its own copy of the model."""
    return replace(vlm, model=copy.deepcopy(vlm.model))


def test_a_copy_of_a_model_uses_its_own_weights(layer: StatefulLayer) -> None:
    other, hidden, layout = copy.deepcopy(layer), hidden_of(SPANS), PackedLayout(packed_of(SPANS))
    with torch.no_grad():
        other.out_proj.weight.zero_()  # type: ignore[union-attr, operator]
        if getattr(other.out_proj, "bias", None) is not None:
            other.out_proj.bias.zero_()  # type: ignore[union-attr, operator]
        assert not other(hidden, layout=layout).any()
        assert layer(hidden, layout=layout).any()


def test_a_layer_placed_by_accelerate_is_packed(layer: StatefulLayer) -> None:
    """Accelerate replaces the forward of a module object; its hook must run ours."""
    plain = copy.deepcopy(layer)
    plain.__class__ = type(layer).__mro__[2]
    add_hook_to_module(plain, AlignDevicesHook(io_same_device=True))
    holder = torch.nn.ModuleList([plain])
    use_states(holder)
    hidden, layout = hidden_of(SPANS), PackedLayout(packed_of(SPANS))
    with torch.no_grad():
        torch.testing.assert_close(plain(hidden, layout=layout), layer(hidden, layout=layout))


def test_adapters_routed_by_token_are_refused(vlm: VLM) -> None:
    with pytest.raises(InputError, match="recurrent state"):
        add_lora(copy_of(vlm), LoraSettings(rank=2, alpha=4.0, decoupled=True))


def test_a_text_only_decoder_has_no_such_layers(tmp_path: Path) -> None:
    assert stateful_layers(load_vlm(FAMILIES["llama"](tmp_path)).base.get_decoder()) == []
