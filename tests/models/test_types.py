"""Many types of models, computed in the way that their proof chooses, against their own forward of each row alone.

The models have random weights and no processors (`tests.models.zoo`); the plain model is another object, whose
attention stays Transformers' own. `python -m tests.models.types_table` writes what is found for `sightline list`.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sightline.cli.listing import conformance, list_entries
from sightline.models.adapters import LoraSettings, add_lora
from sightline.models.compat import set_activation_checkpointing
from sightline.models.packing import Continuation, PackRow
from sightline.models.unbatched import unbatched_logits, unbatched_logps
from sightline.models.vlm import VLM, evaluating, train_mode
from sightline.models.ways.limited import LimitedWay
from tests.models.zoo import ZOO
from tests.models.zoo_held_out import TIMM
from tests.models.zoo_models import build, proved, rows_of

#: One type for each kind of way, decoder input and layer; the others are slow tests.
QUICK = ("qwen3_vl_moe", "gemma4", "lfm2_vl", "minimax_m3_vl-sparse")
TYPES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]
STEPS = 5
#: Ids below this are special tokens, those of pictures among them.
SPECIAL = 40
DROPOUTS = (nn.Dropout, nn.Dropout2d)


@pytest.fixture(params=TYPES)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    if found in TIMM:
        pytest.importorskip("timm")
    return found


def test_log_probs_hiding_and_samples_equal_its_own_forward(name: str) -> None:
    plain, vlm, proof = proved(name)
    rows = rows_of(plain, name)
    with torch.no_grad():
        expected = unbatched_logps(plain, rows)
        found = vlm.way.scores(vlm, rows, entropy=True)
    torch.testing.assert_close(found.logps, expected, rtol=1e-5, atol=3e-5)
    assert found.entropy is not None and found.entropy.isfinite().all()
    assert proof.image is not None and proof.image > 1e-3
    check_states(plain, vlm, rows)
    check_samples(plain, vlm, rows, frozenset())
    if vlm.way.hiding is not None:
        check_hiding(plain, vlm, rows[0], proof.reference)


def check_states(plain: VLM, vlm: VLM, rows: list[PackRow]) -> None:
    with torch.no_grad():
        states = vlm.way.states(vlm, rows, logps=True)
        expected = unbatched_logps(plain, rows)
    assert states.logps is not None
    torch.testing.assert_close(states.logps, expected, rtol=1e-5, atol=3e-5)
    assert len(states.before) == len(expected) and len(states.last) == sum(len(row.answers) for row in rows)


def check_hiding(plain: VLM, vlm: VLM, row: PackRow, reference: str | None) -> None:
    count = row.prefix.ids.count(plain.image_token_id)
    hidden = frozenset({0, count - 1})
    some = PackRow(row.prefix, row.answers[:2], hidden)
    with torch.no_grad():
        expected = unbatched_logps(plain, [some], reference)
        found = vlm.way.scores(vlm, [some]).logps
        shown = unbatched_logps(plain, [PackRow(row.prefix, row.answers[:2])])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=3e-5)
    assert (found - shown).abs().max() > 1e-3
    check_samples(plain, vlm, [some], hidden, reference)


def check_samples(
    plain: VLM, vlm: VLM, rows: list[PackRow], hidden: frozenset[int], reference: str | None = None
) -> None:
    """Greedy tokens of rows in one batch, with and without a prefill, are those of whole forwards."""
    starts = [Continuation(row.prefix, prefill, hidden) for row in rows[:2] for prefill in ((), (61, 62), ())]
    with torch.no_grad():
        decoding = vlm.way.start(vlm, starts, STEPS)
        texts: list[list[int]] = [[] for _ in starts]
        order = decoding.order
        for step in range(STEPS):
            tokens = choose(decoding.logits)
            for place, token in zip(order, tokens.tolist(), strict=True):
                texts[place].append(token)
            if step == 1:  # a row ends
                tokens = tokens[decoding.select([n for n in range(len(order)) if order[n] != 0])]
                order = [place for place in order if place != 0]
            decoding.step(tokens)
        for start, found in zip(starts, texts, strict=True):
            for length in range(len(found)):
                known = (*start.prefill, *found[:length], 2)
                row = PackRow(start.prefix, (), hidden)
                logits = unbatched_logits(plain, row, known, reference)[-1]
                assert float(logits[SPECIAL:].max() - logits[found[length]]) < 1e-4


def choose(logits: Tensor) -> Tensor:
    """The likeliest tokens that are words."""
    return logits[:, SPECIAL:].argmax(-1) + SPECIAL


@pytest.mark.parametrize("how", ["full", "lora", "checkpointing"])
def test_gradients_equal_those_of_its_own_forward(name: str, how: str) -> None:
    plain, vlm, _ = proved(name)
    if how == "full":
        plain.model.requires_grad_(True)
        vlm.model.requires_grad_(True)
    else:
        plain, vlm = (perturbed(add_lora(one, LoraSettings(rank=2, alpha=4.0))) for one in (plain, vlm))
    if how == "checkpointing":
        if not vlm.base.supports_gradient_checkpointing:
            pytest.skip("the type cannot checkpoint activations")
        set_activation_checkpointing(vlm.base, enabled=True)
        for one in (plain, vlm):  # Gemma 3n computes some coefficients without their adapters in training
            train_mode(one.model)
            without_dropout(one.model)
    rows = rows_of(plain, name)[:2]
    expected, found = gradients(plain, unbatched_logps(plain, rows)), gradients(vlm, vlm.way.scores(vlm, rows).logps)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for weight, gradient in expected.items():
        if gradient.abs().max() > 1e-5 * largest:
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found[weight], gradient, rtol=1e-4, atol=1e-4 * scale)


def without_dropout(model: nn.Module) -> None:
    """Switch off dropout, which is a module or a number of one."""
    for module in model.modules():
        for key, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in key or (key == "p" and isinstance(module, DROPOUTS))):
                setattr(module, key, 0.0)


def perturbed(vlm: VLM) -> VLM:
    """Change a new adapter, which is the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in vlm.model.parameters():
            if weight.requires_grad:
                weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return vlm


def gradients(vlm: VLM, logps: Tensor) -> dict[str, Tensor]:
    vlm.model.zero_grad(set_to_none=True)
    (logps * torch.linspace(0.5, 1.5, len(logps))).sum().backward()
    return {name: weight.grad.clone() for name, weight in vlm.model.named_parameters() if weight.grad is not None}


def test_batch_norms_keep_their_statistics_in_training() -> None:
    """Those of a frozen vision tower would change with each step, and the reference with them."""
    vlm = build("emu3")
    norms = [module for module in vlm.model.modules() if isinstance(module, nn.BatchNorm3d)]
    assert norms
    for norm in norms:
        assert norm.running_mean is not None
        norm.running_mean.normal_()
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    train_mode(vlm.model)
    assert vlm.model.training and not any(norm.training for norm in norms)
    x = torch.randn(2, norms[0].num_features, 2, 3, 3)
    assert not torch.equal(norms[0](x), nn.functional.batch_norm(x, None, None, training=True))
    with evaluating(vlm):
        pass
    assert vlm.model.training and not any(norm.training for norm in norms)
    after = [norm.running_mean for norm in norms if norm.running_mean is not None]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_measure_is_taken_before_attention_is_registered() -> None:
    """Under a name that Transformers does not know, indexers are off, and a plain forward is wrong itself."""
    plain, vlm, proof = proved("mistral_large4-short")
    assert proof.rejected.keys() >= {"recorded"} and vlm.way.name in ("cached", "row by row")
    rows = rows_of(plain, "mistral_large4-short")[:1]
    assert build("mistral_large4-short").base.config._attn_implementation == "sdpa"
    with torch.no_grad():
        torch.testing.assert_close(vlm.way.scores(vlm, rows).logps, unbatched_logps(plain, rows), rtol=1e-5, atol=3e-5)


def test_long_rows_of_a_model_that_chooses_among_tokens_are_computed_alone() -> None:
    """Rows up to `index_topk` tokens are packed; a longer one goes through the model's own forward."""
    plain, vlm, proof = proved("mistral_large4")
    assert proof.limit == 2048
    assert vlm.way.name == "recorded"
    text = vlm.base.config.get_text_config()
    assert isinstance(vlm.way, LimitedWay)
    rows = rows_of(plain, "mistral_large4")[:2]
    for one in (plain, vlm):
        for module in one.base.modules():
            if hasattr(module, "index_topk"):
                module.index_topk = 8
    assert text.index_topk == 2048
    way = LimitedWay(vlm.way.short, vlm.way.long, 8)
    with torch.no_grad():
        expected = unbatched_logps(plain, rows)
        found = way.scores(vlm, rows).logps
        wrong = vlm.way.scores(vlm, rows).logps
        check_samples(plain, replace(vlm, way=way), rows, frozenset())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=3e-5)
    assert (wrong - expected).abs().max() > 0.1


@pytest.mark.parametrize("one", ["gemma4", "qwen3_vl_moe"])
def test_the_list_of_families_says_what_is_found(one: str, capsys: pytest.CaptureFixture[str]) -> None:
    list_entries("families", as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert len([row for row in listed.values() if row.get("log_probs", 1.0) < 1e-4]) >= 45
    assert all(row["gradients"] < 2e-4 for row in listed.values() if "gradients" in row)
    _, vlm, proof = proved(one)
    row = listed[one]
    assert (row["way"], row["hiding"], row.get("limit")) == (vlm.way.name, vlm.way.hiding, proof.limit)


def test_the_table_of_the_docs_is_that_of_the_list() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-it-works" / "models.md").read_text(encoding="utf-8")
    for name, row in conformance().items():
        assert f"| `{name}` | {row['way']} | {row['hiding'] or 'not possible'} | {row['log_probs']:.0e} |" in page
