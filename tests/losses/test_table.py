"""The table of losses and objectives: bound parameters, needs, sums, and errors."""

import pytest
import torch

from sightline.errors import InputError
from sightline.losses.dpo import dpo
from sightline.losses.objective import BoundLoss, Objective, Term, make_objective
from sightline.losses.reference_free import sft
from sightline.losses.table import LOSSES, ChoiceParameter, LossSpec, Parameter, check_loss, check_parameters
from sightline.losses.types import LossOut, PairLogps, Requirement

LENGTHS = (torch.tensor([4]), torch.tensor([5]))
POLICY = PairLogps(torch.tensor([-4.0]), torch.tensor([-5.0]), *LENGTHS)
REFERENCE = PairLogps(torch.tensor([-6.0]), torch.tensor([-3.0]), *LENGTHS)


def margin_loss(policy: PairLogps, *, gamma: float) -> LossOut:
    return LossOut(gamma - policy.chosen + policy.rejected, policy.chosen.detach(), policy.rejected.detach())


def shifted(policy: PairLogps, *, shift: float) -> LossOut:
    level = (policy.chosen + policy.rejected).detach() / 2
    return LossOut(policy.rejected - shift, policy.chosen.detach(), policy.rejected.detach(), level)


def test_an_objective_is_its_function_with_its_parameters() -> None:
    objective = make_objective([Term("dpo", parameters={"beta": 0.5})])
    assert objective.needs == {Requirement.REFERENCE} and objective.name == "dpo"
    assert torch.equal(objective(POLICY, [REFERENCE]).loss, dpo(POLICY, REFERENCE, beta=0.5).loss)


def test_losses_add_up_by_weight_and_the_first_shows_its_rewards() -> None:
    """0.8 * log(1 + e^-2) + 3 * 4 / 4 = 0.8 * 0.1269280110 + 3 = 3.1015424088."""
    objective = make_objective([Term("dpo", 0.8, {"beta": 0.5}), Term("sft", 3.0)])
    out = objective(POLICY, [REFERENCE])
    assert objective.needs == {Requirement.REFERENCE} and objective.name == "dpo+sft"
    assert out.loss.tolist() == pytest.approx([3.1015424088])
    assert (out.chosen_reward.item(), out.rejected_reward.item()) == (1.0, -1.0)
    turned = make_objective([Term("sft", 3.0), Term("dpo", 0.8, {"beta": 0.5})])(POLICY, [REFERENCE])
    assert turned.loss.item() == pytest.approx(out.loss.item())
    assert turned.chosen_reward.item() == sft(POLICY).chosen_reward.item() == -1.0


def test_one_reference_is_the_primary_one() -> None:
    objective = make_objective([Term("dpo", parameters={"beta": 0.5})])
    assert torch.equal(objective(POLICY, [REFERENCE, POLICY]).loss, objective(POLICY, [REFERENCE]).loss)


def test_a_needed_reference_cannot_be_left_out() -> None:
    with pytest.raises(ValueError, match="dpo needs reference"):
        make_objective([Term("dpo", parameters={"beta": 0.5})])(POLICY)
    several = BoundLoss("several", margin_loss, frozenset({Requirement.REFERENCES}))
    with pytest.raises(ValueError, match="several needs log-probabilities of at least two references"):
        Objective((several,))(POLICY, [REFERENCE])


def test_a_loss_is_one_table_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "margin", LossSpec(margin_loss, (Parameter("gamma", above=-1.0),)))
    assert make_objective([Term("margin", 2.0, {"gamma": 0.5})])(POLICY).loss.tolist() == [-1.0]  # 2 (0.5 - -4 + -5)


def test_the_shift_goes_to_the_loss_that_needs_it_and_its_level_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "shifted", LossSpec(shifted, needs=frozenset({Requirement.SHIFT})))
    objective = make_objective([Term("sft", 1.0), Term("shifted", 1.0)])
    out = objective(POLICY, shift=0.25)
    assert objective.needs == {Requirement.SHIFT}
    assert out.loss.item() == 1.0 - 5.25 and out.level is not None and out.level.item() == -4.5
    with pytest.raises(InputError, match="shifted and shifted would share one running mean"):
        make_objective([Term("shifted"), Term("shifted", 0.5)])


def test_scores_and_log_probs_do_not_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "scores", LossSpec(margin_loss, (), frozenset({Requirement.REWARDS})))
    with pytest.raises(InputError, match="scores uses scores of a reward head and sft uses log-probs"):
        make_objective([Term("sft"), Term("scores")])


def test_an_objective_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="name at least one loss"):
        make_objective([])


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_a_number_above_zero(weight: float) -> None:
    with pytest.raises(InputError, match=r"loss\.weight is .*: sft needs a number greater than 0"):
        make_objective([Term("sft", weight)])


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
        ("orpo", {"weight": 0.1}, "loss.weight: .*did you mean 'odds_weight'"),
    ],
)
def test_wrong_losses_are_refused_in_one_sentence(name: str, parameters: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_loss(name, parameters)


def test_an_objective_is_checked_when_made() -> None:
    with pytest.raises(InputError, match=r"loss\.beta is missing"):
        make_objective([Term("dpo")])


@pytest.mark.parametrize("epsilon", [0.0, 0.5, -0.1, float("nan"), True])
def test_a_number_has_two_bounds(epsilon: float) -> None:
    with pytest.raises(InputError, match=r"needs a number greater than 0 and less than 0\.5"):
        check_loss("dpo-robust", {"beta": 0.1, "epsilon": epsilon})


def test_bounds_may_be_closed() -> None:
    share = Parameter("gamma", below=1.0, closed=True)
    assert share.accepts(0) and share.accepts(1.0) and share.accepts(0.5)
    assert not any(share.accepts(value) for value in (-0.1, 1.1, float("nan"), True, "1"))
    with pytest.raises(InputError, match="needs a number from 0 to 1"):
        check_parameters("made-up", (share,), {"gamma": 2})


def test_a_word_is_one_of_the_options() -> None:
    order = ChoiceParameter("order", ("first", "last"))
    check_parameters("made-up", (order,), {"order": "last"})
    with pytest.raises(InputError, match=r"loss\.order is 'middle': the loss made-up needs one of first, last"):
        check_parameters("made-up", (order,), {"order": "middle"})
    with pytest.raises(InputError, match=r"loss\.order is missing.*give one of first, last"):
        check_parameters("made-up", (order,), {})
