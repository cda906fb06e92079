"""Each monitor warns of its own fault, at its step and nowhere else; limits computed by hand."""

import pytest

from sightline.train.log import StepRecord
from sightline.train.monitors import MONITORS, TrainMonitor, TrainMonitorConfig, warnings_after

#: A healthy step: chosen answers as likely as under the reference, equal lengths, three of four pairs right.
FINE = {
    "loss": 0.6,
    "accuracy": 0.75,
    "chosen_logps": -20.0,
    "rejected_logps": -30.0,
    "chosen_ref_logps": -20.0,
    "rejected_ref_logps": -25.0,
    "chosen_tokens": 10.0,
    "rejected_tokens": 10.0,
    "grad_norm": 1.0,
    "lr": 1e-4,
    "seconds": 1.0,
    "pairs": 4,
}
ONLINE = {"yes_ratio": 0.5, "kl": 0.1, "entropy": 2.0, "ties": 0.2, "answer_tokens": 12.0}
WINDOW = TrainMonitorConfig(window=3)


def step(number: int, numbers: dict[str, float] | None = None, **changed: float | None) -> StepRecord:
    return StepRecord.model_validate({**FINE, "step": number, "numbers": {**ONLINE, **(numbers or {})}, **changed})


def spoken(rows: list[StepRecord], config: TrainMonitorConfig = WINDOW) -> list[tuple[int, str]]:
    """(step at which it spoke, first words)"""
    watch = TrainMonitor(config)
    return [(row.step, line) for row in rows for line in watch.observe(row)]


def test_a_healthy_run_is_left_in_peace() -> None:
    assert spoken([step(n) for n in range(30)]) == []


@pytest.mark.parametrize(
    ("changed", "numbers", "at", "says"),
    [
        # after step 2 the window of three means (0 + 0 - 4) / 3 / 10 = -0.13 nats a token, beyond 0.1
        ({"chosen_logps": -24.0}, {}, 2, "step 3: chosen answers are 0.13 nats a token less likely than under"),
        ({"chosen_logps": -24.0, "chosen_ref_logps": None}, {}, 5, "have become 0.27 nats a token less likely"),
        ({"rejected_tokens": 5.0}, {}, 2, "chosen answers are 33% longer than rejected ones"),
        ({"chosen_tokens": 4.0}, {}, 2, "chosen answers are 50% shorter than rejected ones"),
        ({}, {"answer_tokens": 18.0}, 5, "own answers went from 14 to 18 tokens"),
        ({}, {"yes_ratio": 0.95}, 5, "yes among yes/no answers went from 65% to 95%"),
        ({}, {"yes_ratio": 0.05}, 5, "yes among yes/no answers went from 35% to 5%"),
        ({}, {"kl": 1.6}, 2, "the policy is 0.60 nats a token from its reference (limit 0.5); lower optim.lr"),
        ({}, {"entropy": 0.2}, 5, "fell from 1.40 to 0.20 nats"),
        ({}, {"ties": 0.9}, 3, "67% of the prompts gave no pair"),
        ({"accuracy": 0.25}, {}, 5, "only 25% of the pairs have the higher reward"),
    ],
)
def test_a_fault_is_named_once_when_the_window_shows_it(
    changed: dict[str, float | None], numbers: dict[str, float], at: int, says: str
) -> None:
    """Two healthy steps, then the fault to the end: changes are held against the mean of the first three steps."""
    rows = [step(0), step(1), *(step(n, numbers, **changed) for n in range(2, 12))]
    if "chosen_ref_logps" in changed:
        rows[:2] = [step(n, chosen_ref_logps=None) for n in range(2)]
    ((when, line),) = spoken(rows)
    assert when == at and says in line and line.startswith(f"step {at + 1}: ") and "\n" not in line
    assert line.endswith(".") and "; " in line, "the remedy stands behind it"


@pytest.mark.parametrize("name", sorted({monitor.name for monitor in MONITORS}))
def test_a_monitor_can_be_silenced(name: str) -> None:
    bad = {"chosen_logps": -40.0, "rejected_tokens": 3.0, "accuracy": 0.1}
    worse = {"yes_ratio": 1.0, "kl": 3.0, "entropy": 0.1, "ties": 1.0, "answer_tokens": 40.0}
    rows = [step(0), step(1), *(step(n, worse, **bad) for n in range(2, 12))]
    everything = {w.monitor for w in warnings_after(rows, WINDOW)}
    assert everything == {monitor.name for monitor in MONITORS}
    assert {w.monitor for w in warnings_after(rows, WINDOW.model_copy(update={name: None}))} == everything - {name}


def test_streams_are_watched_apart_and_steps_count_by_their_items() -> None:
    """The online half drifts while the offline one hides it: (10 * 0.1 + 2 * 0.8) / 12 = 0.22 in all."""
    rows = []
    for n in range(6):
        online = {"kl": 0.8, "pairs": 2.0} if n > 2 else {"kl": 0.1, "pairs": 2.0}
        streams = {"offline": {"kl": 0.1, "pairs": 10.0}, "online": online}
        rows.append(step(n, {"kl": 0.1 if n <= 2 else 2.6 / 12}, pairs=12).model_copy(update={"streams": streams}))
    ((when, line),) = spoken(rows)
    assert when == 4 and line.startswith("step 5 (online): the policy is 0.57 nats"), "(0.1 + 0.8 + 0.8) / 3"
    heavy = [step(0, {"kl": 0.1}, pairs=1), step(1, {"kl": 0.1}, pairs=1), step(2, {"kl": 0.9}, pairs=8)]
    ((_, line),) = spoken(heavy)
    assert "is 0.74 nats a token" in line, "(0.1 + 0.1 + 8 * 0.9) / 10"


def test_a_resumed_run_says_nothing_twice_and_keeps_all_lines() -> None:
    rows = [step(n, {"kl": 2.0}) for n in range(10)]
    whole = TrainMonitor(WINDOW)
    spoken_lines = [line for row in rows for line in whole.observe(row)]
    resumed = TrainMonitor(WINDOW, rows[:5])
    assert [line for row in rows[5:] for line in resumed.observe(row)] == []
    assert resumed.lines == whole.lines == tuple(spoken_lines) and len(spoken_lines) == 1


@pytest.mark.parametrize("mixed", [False, True])
def test_the_policys_own_pairs_tell_length_and_divergence(*, mixed: bool) -> None:
    """Own answers of (8 + 12) / 2 = 10 tokens, then of (18 + 12) / 2 = 15; (0.9 + 0.5) / 2 = 0.7 nats a token."""
    rows = []
    for n in range(6):
        own = {"chosen_tokens": 8.0 if n < 3 else 18.0, "rejected_tokens": 12.0, "pairs": 2.0}
        own |= {"chosen_kl": 0.9, "rejected_kl": 0.5} if n == 5 else {"chosen_kl": 0.1, "rejected_kl": 0.1}
        streams = {"online": own, **({"offline": {"pairs": 2.0}} if mixed else {})}
        bare = step(n).model_copy(update={"streams": streams, "numbers": {}})
        rows.append(bare)
    spoken_lines = [line for _, line in spoken(rows, WINDOW.model_copy(update={"kl": 0.25}))]
    of = " (online)" if mixed else ""
    assert any(line.startswith(f"step 6{of}: the policy is 0.30 nats a token") for line in spoken_lines)
    assert any(f"{of}: the policy's own answers went from 10 to 1" in line for line in spoken_lines)
    assert len(spoken_lines) == len(set(spoken_lines)) and (mixed or all("online" not in line for line in spoken_lines))
