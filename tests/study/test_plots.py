"""Plots take their colors from the page, repeat no id, and average as they say."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from sightline.report.curves import training_curves as all_curves
from sightline.report.curves import training_sentences
from sightline.report.plots import LOGPS, LOSS, length_histogram, running_mean, training_curves
from sightline.train.log import StepRecord


def step(number: int, **changes: float | None) -> StepRecord:
    values: dict[str, float | None] = {
        name: float(number) for name in StepRecord.model_fields if name not in ("step", "pairs", "numbers", "streams")
    }
    return StepRecord.model_validate({**values, "step": number, "pairs": 1, **changes})


def test_running_mean_by_hand() -> None:
    assert running_mean(np.array([1.0, 2.0, 6.0, 3.0]), 1) == pytest.approx([1.5, 3.0, 11 / 3, 4.5])
    assert running_mean(np.array([4.0]), 3) == pytest.approx([4.0])


def test_a_plot_is_one_well_formed_svg_in_the_colors_of_the_page() -> None:
    runs = [[step(number) for number in range(30)]]
    texts = [training_curves(runs, LOSS, "loss", "a"), training_curves(runs, LOGPS, "nats", "b")]
    texts.append(length_histogram([3.0, 4.0], [3.0, 9.0], "c"))
    ids: list[str] = []
    for text in texts:
        ET.fromstring(text.replace("xlink:href", "href"))
        assert not re.search(r"#[0-9a-f]{6}\b", text)
        assert "var(--chosen)" in text or "var(--aligned)" in text
        ids += re.findall(r'\bid="([^"]+)"', text)
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_plot_is_the_same_every_time() -> None:
    runs = [[step(number) for number in range(5)]]
    assert training_curves(runs, LOSS, "loss", "a") == training_curves(runs, LOSS, "loss", "a")


def test_no_reference_draws_no_reference() -> None:
    run = [step(number, chosen_ref_logps=None, rejected_ref_logps=None) for number in range(5)]
    text = training_curves([run], LOGPS, "nats", "a")
    assert "chosen, policy" in text
    assert "chosen, reference" not in text


def test_sentences_say_what_the_log_says() -> None:
    runs = [[step(n, margin=0.5 * n, chosen_logps=-30.0 - n, chosen_ref_logps=-30.0) for n in range(20)]]
    text = " ".join(training_sentences(runs))
    assert "20 steps and 190 seconds" in text
    assert "from 0.25 (first tenth of the steps) to 9.25 (last tenth)" in text
    assert "chosen answers \N{MINUS SIGN}18.50 nats" in text
    assert training_sentences([]) == []


def test_what_the_monitors_watch_is_drawn_where_it_was_logged() -> None:
    plain = [[step(number) for number in range(5)]]
    titles = [curve.title for curve in all_curves(plain)]
    assert "Entropy" not in titles and "Reward margin by stream" not in titles
    logged = {"numbers": {"kl": 0.25, "ties": 0.5}, "streams": {"offline": {"margin": 1.0}, "online": {"margin": 3.0}}}
    curves = {curve.title: curve for curve in all_curves([[row.model_copy(update=logged) for row in plain[0]]])}
    assert set(curves) - set(titles) == {
        "Distance from the reference",
        "The policy's own answers",
        "Reward margin by stream",
    }
    assert "policy's answers from 0.25 to 0.25." in curves["Distance from the reference"].alt
    assert "offline from 1.00 to 1.00; online from 3.00 to 3.00." in curves["Reward margin by stream"].alt
    assert "tied" in curves["The policy's own answers"].svg and ">yes<" not in curves["The policy's own answers"].svg
