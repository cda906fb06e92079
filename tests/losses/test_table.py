"""The table of losses: what it binds, and how it refuses a wrong name or number."""

import pytest
import torch

from sightline.errors import InputError
from sightline.losses.dpo import dpo
from sightline.losses.table import LOSSES, LossSpec, Objective, Parameter, check_loss, make_objective
from sightline.losses.types import LossOut, PairLogps

LENGTHS = (torch.tensor([4]), torch.tensor([5]))
POLICY = PairLogps(torch.tensor([-4.0]), torch.tensor([-5.0]), *LENGTHS)
REFERENCE = PairLogps(torch.tensor([-6.0]), torch.tensor([-3.0]), *LENGTHS)


def test_an_objective_is_its_function_with_its_parameters() -> None:
    objective = make_objective("dpo", {"beta": 0.5})
    assert objective.needs_reference
    assert torch.equal(objective(POLICY, REFERENCE).loss, dpo(POLICY, REFERENCE, beta=0.5).loss)


def test_every_spec_is_callable_with_exactly_its_parameters() -> None:
    for name, spec in LOSSES.items():
        objective = make_objective(name, {parameter.name: parameter.above + 0.25 for parameter in spec.parameters})
        assert objective(POLICY, REFERENCE if spec.needs_reference else None).loss.shape == (1,)


def test_a_needed_reference_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="dpo needs reference"):
        make_objective("dpo", {"beta": 0.5})(POLICY, None)


def test_a_loss_without_a_reference_is_one_table_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def margin_loss(policy: PairLogps, *, gamma: float) -> LossOut:
        return LossOut(gamma - policy.chosen + policy.rejected, policy.chosen.detach(), policy.rejected.detach())

    monkeypatch.setitem(LOSSES, "margin", LossSpec(margin_loss, False, (Parameter("gamma", above=-1.0),)))
    objective: Objective = make_objective("margin", {"gamma": 0.0})
    assert objective(POLICY, None).loss.tolist() == [-1.0]  # 0 - -4 + -5


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("dop", {"beta": 0.1}, "no loss is called 'dop' \\(did you mean 'dpo'\\?\\)"),
        ("dpo", {}, "loss.beta is missing"),
        ("dpo", {"beta": 0.0}, "loss.beta is 0.0: the loss dpo needs a number greater than 0"),
        ("dpo", {"beta": -0.1}, "loss.beta is -0.1"),
        ("dpo", {"beta": float("nan")}, "loss.beta is nan"),
        ("dpo", {"beta": float("inf")}, "loss.beta is inf"),
        ("dpo", {"beta": True}, "loss.beta is True"),
        ("dpo", {"beta": "a lot"}, "loss.beta is 'a lot'"),
        ("dpo", {"bta": 0.1}, "loss.bta: the loss dpo has no such parameter \\(did you mean 'beta'\\?\\)"),
        ("dpo", {"beta": 0.1, "gamma": 1.0}, "loss.gamma"),
    ],
)
def test_wrong_losses_are_refused_in_one_sentence(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_loss(name, parameters)


def test_an_objective_is_checked_when_made() -> None:
    with pytest.raises(InputError, match=r"loss\.beta is missing"):
        make_objective("dpo", {})


@pytest.mark.parametrize("epsilon", [0.0, 0.5, -0.1, float("nan"), True])
def test_a_number_has_two_bounds(epsilon: float) -> None:
    with pytest.raises(InputError, match=r"needs a number greater than 0 and less than 0\.5"):
        check_loss("dpo-robust", {"beta": 0.1, "epsilon": epsilon})
