"""Every loss of the table on one pair, worked by hand; a registered loss without such a value fails here.

The pair is that of `example_pairs`. Log-probs under policy and reference, and their log-ratios:

    chosen          -6    -5    -1      4 tokens, 2 of them changed: -3.5 and -3
    rejected        -5    -5.5  +0.5    5 tokens, 3 of them changed: -2 and -2.5
    second rejected -4.5  -4    -0.5
    weakened chosen -7    -6.5  -0.5
    blind           -8, -5.5 (policy); -7, -6 (reference): chosen, rejected
    mismatched      -9    -9.5  +0.5
    other reference -5.6, -5.2: chosen, rejected

The margin h is -1 - 0.5 = -1.5, and beta h = -0.75 with beta 0.5. L(x) = log(1 + e^x):

    L(0.75) = 1.1368710061    L(-0.75) = 0.3868710061    L(0.25) = 0.8259394199    L(0.5) = 0.9740769842
    L(0.7) = 1.1031860489     L(0.375) = 0.8981232641    L(1.3) = 1.5410084538     L(1) = 1.3132616875
    L(0) = log 2 = 0.6931471806
"""

from typing import NamedTuple

import pytest

from sightline.losses.table import LOSSES, ChoiceParameter, LossSpec
from sightline.losses.types import LossOut, PairLogps
from tests.losses.example_pairs import POLICY, REFERENCE, compute_loss, logps


class Worked(NamedTuple):
    """Parameters, the loss, and the rewards of the chosen and the rejected answer."""

    parameters: dict[str, object]
    loss: float
    chosen_reward: float
    rejected_reward: float


# Rewards are beta times the log-ratios unless a comment says otherwise: -0.5 and 0.25 with beta 0.5.
WORKED: dict[str, list[Worked]] = {
    # L(-beta h)
    "dpo": [Worked({"beta": 0.5}, 1.1368710061, -0.5, 0.25)],
    # by token -6/4 + 5/4 = -0.25 and -5/5 + 5.5/5 = 0.1; beta 2: rewards -0.5 and 0.2, L(0.7)
    "dpo-normalized": [Worked({"beta": 2.0}, 1.1031860489, -0.5, 0.2)],
    # 0.9 * 1.1368710061 + 0.1 * 0.3868710061
    "dpo-conservative": [Worked({"beta": 0.5, "epsilon": 0.1}, 1.0618710061, -0.5, 0.25)],
    # (0.9 * 1.1368710061 - 0.1 * 0.3868710061) / 0.8
    "dpo-robust": [Worked({"beta": 0.5, "epsilon": 0.1}, 1.2306210061, -0.5, 0.25)],
    # second rejected: reward -0.25; 0.25 L(0.25 + 0.5) + 0.75 L(-0.25 + 0.5) = 0.25 * 1.1368710061 + 0.75 *
    # 0.8259394199; rejected reward 0.25 * 0.25 + 0.75 * -0.25 = -0.125
    "dpo-averaged": [Worked({"beta": 0.5, "gamma": 0.25}, 0.9036723164, -0.5, -0.125)],
    # gamma 5: chosen (-6 + 4 * -3.5) / (4 + 4 * 2) = -20/12, reference (-5 + 4 * -3) / 12 = -17/12: 0.5 * -3/12;
    # rejected (-5 + 4 * -2) / (5 + 4 * 3) = -13/17, reference (-5.5 + 4 * -2.5) / 17 = -15.5/17: 0.5 * 2.5/17;
    # L(0.125 + 0.0735294118) = L(0.1985294118)
    "dpo-dense": [Worked({"beta": 0.5, "gamma": 5.0}, 0.7973305576, -0.125, 0.0735294118)],
    # (-1.5 - 1 / (2 * 0.5))^2 = 2.5^2
    "ipo": [Worked({"beta": 0.5}, 6.25, -0.5, 0.25)],
    # max(0, 1 + 0.75)
    "hinge": [Worked({"beta": 0.5}, 1.75, -0.5, 0.25)],
    # z0 = 0.5; chosen 1 * sigma(-0.5 * (-1 - 0.5)) = sigma(0.75) = 0.6791786992; rejected 2 * sigma(-0.5 * (0.5 -
    # 0.5)) = 1; half their sum
    "kto": [Worked({"beta": 0.5, "chosen_weight": 1.0, "rejected_weight": 2.0}, 0.8395893496, -0.5, 0.25)],
    # shift 0.25: L(0.5 + 0.25) + L(0.25 - 0.25) = 1.1368710061 + 0.6931471806
    "bco": [Worked({"beta": 0.5}, 1.8300181867, -0.5, 0.25)],
    # L(0.5) + L(0.25)
    "bco-unshifted": [Worked({"beta": 0.5}, 1.8000164041, -0.5, 0.25)],
    # L(0.75) + L(0.5 - 0.25) + L(0.5), the three terms below with delta 0
    "mdpo": [Worked({"beta": 0.5}, 2.9368874102, -0.5, 0.25)],
    # the corrupted image's reward, -0.25, is the rejected one; L(0.5 - 0.25)
    "mdpo-conditional": [Worked({"beta": 0.5}, 0.8259394199, -0.5, -0.25)],
    # L(0.5 + 0.25)
    "mdpo-anchored": [Worked({"beta": 0.5, "delta": 0.25}, 1.1368710061, -0.5, 0.25)],
    # gamma 1.5, guided by the policy: 1.5 * -6 + 0.5 * 8 = -5 and 1.5 * -5 + 0.5 * 5.5 = -4.75; margin (-5 + 5) -
    # (-4.75 + 5.5) = -0.75: L(0.375). By the reference: -9 + 0.5 * 7 = -5.5 and -7.5 + 0.5 * 6 = -4.5; margin
    # (-5.5 + 5) - (-4.5 + 5.5) = -1.5: L(0.75)
    "v-dpo": [
        Worked({"beta": 0.5, "gamma": 1.5, "guide": "policy"}, 0.8981232641, -0.5, 0.25),
        Worked({"beta": 0.5, "gamma": 1.5, "guide": "reference"}, 1.1368710061, -0.5, 0.25),
    ],
    # The references tell the answers apart by 0.5 and 0.4: weights 5/9 and 4/9. Clipping with eta 0.1: "fixed" keeps
    # -5.6 within 10 % of -5, so -5.5, and leaves -5.2 as it is; "adaptive" has mean sizes 5.3 and 5.35, widths
    # 0.1 * 5.3/10.65 = 0.0497652582 and 0.0502347418: -5 * 1.0497652582 = -5.2488262911 and -5.5 * 0.9497652582 =
    # -5.2237089202.
    # adaptive, paper: chosen -log(5/9 e^5 + 4/9 e^5.2488262911) = -5.1182843337, rejected -log(5/9 e^5.5 + 4/9
    # e^5.2237089202) = -5.3865038066; rewards 0.5 * (-6 + 5.1182843337) and 0.5 * (-5 + 5.3865038066); L(0.6341097365)
    # fixed, code: weights 4/9 and 5/9; -log(4/9 e^5 + 5/9 e^5.5) = -5.3077792931 and -log(4/9 e^5.5 + 5/9 e^5.2) =
    # -5.3445269226; L(0.5183738147)
    # adaptive, uniform: -log((e^5 + e^5.2488262911) / 2) = -5.1321325773 and -log((e^5.5 + e^5.2237089202) / 2) =
    # -5.3713663582; L(0.6196168905)
    "mrpo": [
        Worked(
            {"beta": 0.5, "eta": 0.1, "clip": "adaptive", "weights": "paper"}, 1.0596437636, -0.4408578332, 0.1932519033
        ),
        Worked(
            {"beta": 0.5, "eta": 0.1, "clip": "fixed", "weights": "code"}, 0.9855535449, -0.3461103535, 0.1722634613
        ),
        Worked(
            {"beta": 0.5, "eta": 0.1, "clip": "adaptive", "weights": "uniform"},
            1.0501976558,
            -0.4339337114,
            0.1856831791,
        ),
    ],
    # Against the first reference L(0.75) with rewards -0.5 and 0.25. Against the second, adaptive: 0.5 * (-6 +
    # 5.2488262911) = -0.3755868545 and 0.5 * (-5 + 5.2237089202) = 0.1118544601, L(0.4874413146) = 0.9662782646; fixed:
    # 0.5 * (-6 + 5.5) = -0.25 and 0.5 * (-5 + 5.2) = 0.1, L(0.35) = 0.8833821554.
    # adaptive, paper: 5/9 * 1.1368710061 + 4/9 * 0.9662782646, rewards alike; fixed, uniform: the means
    "multi-dpo": [
        Worked(
            {"beta": 0.5, "eta": 0.1, "clip": "adaptive", "weights": "paper"}, 1.0610520099, -0.4447052686, 0.1886019823
        ),
        Worked({"beta": 0.5, "eta": 0.1, "clip": "fixed", "weights": "uniform"}, 1.0101265808, -0.375, 0.175),
    ],
    # 6 / 4; rewards are means by token, -6/4 and -5/5
    "sft": [Worked({}, 1.5, -1.5, -1.0)],
    # 2 * -1.5 - 2 * -1 - 0.3 = -1.3: L(1.3); rewards 2 * -1.5 and 2 * -1
    "simpo": [Worked({"beta": 2.0, "gamma": 0.3}, 1.5410084538, -3.0, -2.0)],
    # log odds -1.5 - log(1 - e^-1.5) = -1.2475175411 and -1 - log(1 - e^-1) = -0.5413248546, ratio -0.7061926865;
    # 1.5 + 0.2 * L(0.7061926865) = 1.5 + 0.2 * 1.1073281745; rewards 0.2 * -1.5 and 0.2 * -1
    "orpo": [Worked({"odds_weight": 0.2}, 1.7214656349, -0.3, -0.2)],
    # scores -6 and -5: L(1)
    "reward": [Worked({}, 1.3132616875, -6.0, -5.0)],
}


def check_worked(name: str) -> None:
    """Check a loss against values worked by hand, for every option of its choices."""
    cases = WORKED.get(name, [])
    assert cases, f"{name} has no value worked by hand; add one to WORKED"
    for choice in LOSSES[name].parameters:
        if isinstance(choice, ChoiceParameter):
            missing = set(choice.options) - {str(case.parameters[choice.name]) for case in cases}
            assert not missing, f"{name} has no value worked by hand for {choice.name} {', '.join(sorted(missing))}"
    for case in cases:
        out = compute_loss(name, logps(POLICY), logps(REFERENCE), **case.parameters)
        found = (out.loss.item(), out.chosen_reward.item(), out.rejected_reward.item())
        assert found == pytest.approx(case[1:], abs=1e-6), f"{name} with {case.parameters}"


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_has_a_value_worked_by_hand(name: str) -> None:
    check_worked(name)


def test_a_value_for_a_loss_that_is_gone_is_noticed() -> None:
    assert WORKED.keys() == LOSSES.keys()


def test_a_new_loss_without_a_value_and_one_with_a_wrong_constant_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(policy: PairLogps, reference: PairLogps, *, beta: float) -> LossOut:
        out: LossOut = dpo.function(policy, reference, beta=2 * beta)
        return out

    dpo = LOSSES["dpo"]
    monkeypatch.setitem(LOSSES, "new", dpo)
    with pytest.raises(AssertionError, match="new has no value worked by hand"):
        check_worked("new")
    monkeypatch.setitem(LOSSES, "dpo", LossSpec(doubled, dpo.parameters, dpo.needs))
    with pytest.raises(AssertionError, match="dpo with"):
        check_worked("dpo")
    chosen = LossSpec(LOSSES["v-dpo"].function, (ChoiceParameter("guide", ("policy", "reference", "both")),))
    monkeypatch.setitem(LOSSES, "v-dpo", chosen)
    with pytest.raises(AssertionError, match="v-dpo has no value worked by hand for guide both"):
        check_worked("v-dpo")
