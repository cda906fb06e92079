"""Properties of every loss of the table: signs, no gradient into rewards or references, independence of pairs."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from sightline.errors import InputError
from sightline.losses.objective import Term, make_objective
from sightline.losses.table import LOSSES
from sightline.losses.types import PairLogps, Requirement
from tests.losses.example_pairs import OTHER, POLICY, REFERENCE, compute_loss, example_objective, logps

FIELDS = {
    Requirement.SECOND_REJECTED: {"second_rejected"},
    Requirement.SPANS: {"chosen_changed", "rejected_changed", "chosen_changed_tokens", "rejected_changed_tokens"},
    Requirement.CORRUPTED_IMAGE: {"weakened_chosen"},
    Requirement.NO_IMAGE: {"blind_chosen", "blind_rejected"},
    Requirement.MISMATCHED: {"mismatched"},
}
# A term of mDPO by the chosen answer alone; the control without a rejected answer; the answer with and without picture.
ONE_SIDED = {"mdpo-anchored", "sft", "mdpo-conditional"}


def joined(one: PairLogps, other: PairLogps) -> PairLogps:
    columns = {f.name: (getattr(one, f.name), getattr(other, f.name)) for f in fields(PairLogps)}
    return PairLogps(**{name: torch.cat(pair) for name, pair in columns.items() if pair[0] is not None})


@pytest.mark.parametrize("name", LOSSES)
def test_the_chosen_answer_rises_and_the_rejected_one_falls(name: str) -> None:
    """Likewise the answer to a corrupted image and the second rejected answer fall; answers without image stay."""
    policy = logps(POLICY, grad=True)
    compute_loss(name, policy, logps(REFERENCE)).loss.sum().backward()
    slopes = {f.name: getattr(policy, f.name).grad for f in fields(PairLogps) if f.name in POLICY}
    assert slopes["chosen"] is not None and slopes["chosen"].item() < 0
    if name in ONE_SIDED:
        assert slopes["rejected"] is None or slopes["rejected"].item() == 0
    else:
        assert slopes["rejected"] is not None and slopes["rejected"].item() > 0
    for falling, need in (
        ("second_rejected", Requirement.SECOND_REJECTED),
        ("weakened_chosen", Requirement.CORRUPTED_IMAGE),
    ):
        slope = slopes[falling]
        assert (slope is not None and slope.item() > 0) is (need in LOSSES[name].needs)
    assert all(slopes[still] is None for still in ("blind_chosen", "blind_rejected", "mismatched"))


@pytest.mark.parametrize("name", LOSSES)
def test_rewards_and_levels_carry_no_gradient(name: str) -> None:
    out = compute_loss(name, logps(POLICY, grad=True), logps(REFERENCE))
    assert out.loss.requires_grad and not out.chosen_reward.requires_grad and not out.rejected_reward.requires_grad
    assert (out.level is not None) is (Requirement.SHIFT in LOSSES[name].needs)
    assert out.level is None or not out.level.requires_grad


@pytest.mark.parametrize("name", LOSSES)
def test_pairs_do_not_mix(name: str) -> None:
    """Two pairs together give the losses of each alone; here KTO's estimate is the same for both."""
    other = replace(logps({key: value - 1.5 for key, value in POLICY.items()}), mismatched=logps(POLICY).mismatched)
    policies, reference = (logps(POLICY), other), logps(REFERENCE)
    apart = [compute_loss(name, policy, reference).loss.item() for policy in policies]
    several = [joined(reference, reference), joined(logps(OTHER), logps(OTHER))]
    together = example_objective(name)(joined(*policies), several, shift=0.25).loss
    assert together.tolist() == pytest.approx(apart, abs=1e-12) and together.shape == (2,)


def without(logps: PairLogps, names: set[str]) -> PairLogps:
    nothing: dict[str, Any] = dict.fromkeys(names)
    return replace(logps, **nothing)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_reads_the_fields_that_it_declares_and_no_others(name: str) -> None:
    """The fields of its needs suffice; an error names a missing one."""
    wanted = set().union(*(FIELDS.get(need, set()) for need in LOSSES[name].needs))
    optional = set().union(*FIELDS.values(), {"mismatched_tokens", "second_rejected_tokens"})
    policy, reference = (without(logps(side), optional - wanted) for side in (POLICY, REFERENCE))
    assert torch.equal(
        compute_loss(name, policy, reference).loss, compute_loss(name, logps(POLICY), logps(REFERENCE)).loss
    )
    for field in wanted:
        with pytest.raises(ValueError, match=rf"needs {field} of the pairs, which is missing"):
            compute_loss(name, without(policy, {field}), reference)


def rounded(logps: PairLogps) -> PairLogps:
    columns = {f.name: getattr(logps, f.name) for f in fields(PairLogps) if getattr(logps, f.name) is not None}
    return PairLogps(**{name: c.float() if c.is_floating_point() else c for name, c in columns.items()})


@pytest.mark.parametrize("name", LOSSES)
def test_float32_is_close_to_float64_at_the_size_of_real_answers(name: str) -> None:
    sides = (POLICY, REFERENCE, OTHER)
    long = [logps({k: 40 * v for k, v in side.items()}, chosen_tokens=160, rejected_tokens=200) for side in sides]
    wanted = example_objective(name)(long[0], long[1:], shift=0.25).loss
    found = example_objective(name)(rounded(long[0]), [rounded(reference) for reference in long[1:]], shift=0.25).loss
    assert found.dtype == torch.float32 and found.item() == pytest.approx(wanted.item(), rel=1e-4, abs=1e-5)


def test_reward_models_are_trained_alone_and_one_loss_has_the_shift() -> None:
    with pytest.raises(InputError, match="reward uses scores of a reward head and dpo uses log-probs"):
        make_objective([Term("reward"), Term("dpo", parameters={"beta": 0.1})])
    bco = Term("bco", parameters={"beta": 0.1})
    with pytest.raises(InputError, match="bco and bco would share one running mean"):
        make_objective([bco, bco])
