"""The views of a study's report, with numbers worked by hand: ingredients, front, curves, answers, words."""

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from sightline.evals.metrics import Metric, mean
from sightline.evals.statistics import compare
from sightline.records.rows import Estimate, Score
from sightline.report.formatting import amount_text
from sightline.study.report import answers, drawings
from sightline.study.report.ingredients import IngredientContrast, contrasts, differences, level_text
from sightline.study.report.learning import learning, mean_curve
from sightline.study.report.tradeoff import pareto_front, tradeoffs
from sightline.study.report.words import primary_metrics, verdict_sentences
from sightline.study.results import ArmFinding
from tests.study.test_plots import step
from tests.study.test_study_outcome import finding, outcome


def recipe(**changes: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "pairs": {"builder": "bdhs", "rho": 0.9, "called": "bdhs"},
        "samples": None,
        "loss": {"name": "dpo", "beta": 0.1},
        "source": {"name": "offline"},
        "references": [],
        "optim": {"lr": 1e-4},
    }
    return defaults | changes


IPO = {"name": "ipo", "beta": 0.1}
LOW = {"builder": "bdhs", "rho": 0.5, "called": "low"}


def test_a_section_with_another_name_is_one_difference() -> None:
    assert differences(recipe(), recipe(loss=IPO)) == {"loss": ({"name": "dpo", "beta": 0.1}, IPO)}
    assert differences(recipe(), recipe(loss={"name": "dpo", "beta": 0.5})) == {"loss.beta": (0.1, 0.5)}
    assert set(differences(recipe(), recipe(loss=IPO, optim={"lr": 1e-3}))) == {"loss", "optim.lr"}


def test_arms_that_differ_in_one_thing_are_paired_with_the_rest_held() -> None:
    """Two by two: each ingredient has two couples; arms that differ in both, or in lr besides, make none."""
    recipes = {
        "a": recipe(),
        "b": recipe(loss=IPO),
        "c": {**recipe(), "pairs": LOW},
        "d": {**recipe(loss=IPO), "pairs": LOW},
        "e": {**recipe(loss=IPO, optim={"lr": 1.0}), "pairs": LOW},
    }
    found = {contrast.ingredient: contrast for contrast in contrasts(recipes)}
    assert found["loss"] == IngredientContrast("loss", "dpo", "ipo", (("a", "b"), ("c", "d")))
    assert found["pairs.rho"] == IngredientContrast("pairs.rho", "0.9", "0.5", (("a", "c"), ("b", "d")))
    assert found["optim.lr"] == IngredientContrast("optim.lr", "0.0001", "1", (("d", "e"),))
    assert len(found) == 3
    assert contrasts({"a": recipe(), "x": recipe(loss=IPO, optim={"lr": 1.0})}) == []


def test_levels_are_held_against_the_baseline_s() -> None:
    recipes = {str(lr): recipe(optim={"lr": lr}) for lr in (1.0, 2.0, 3.0)}
    assert [(c.before, c.after) for c in contrasts(recipes)] == [("1", "2"), ("1", "3")]
    assert [(c.before, c.after) for c in contrasts(recipes, first="2.0")] == [("2", "1"), ("2", "3")]


def test_what_comes_with_a_choice_is_no_second_difference() -> None:
    """Online answers need prompts and no pairs; a loss with references needs them."""
    online = {"name": "online", "judge": {"name": "oracle"}}
    recipes = {
        "offline": recipe(),
        "online": recipe(samples="scenes", source=online) | {"pairs": None},
        "weak": recipe(samples="scenes", source={**online, "judge": {"name": "reward"}}) | {"pairs": None},
        "mrpo": recipe(loss={"name": "mrpo"}, references=["sft"]),
        "both": recipe(samples="others", source=online),
    }
    found = {(c.ingredient, c.before, c.after): c.pairings for c in contrasts(recipes)}
    assert found["source", "offline", "online, judge oracle"] == (("offline", "online"), ("offline", "both"))
    assert found["source.judge", "oracle", "reward"] == (("online", "weak"),)
    assert found["loss", "dpo", "mrpo"] == (("offline", "mrpo"),)


def test_pairs_that_differ_in_more_are_other_pairs() -> None:
    other = {"builder": "corrupted", "writer": "oracle", "called": "corrupted"}
    assert contrasts({"a": recipe(), "b": {**recipe(), "pairs": other}}) == [
        IngredientContrast("pairs", "bdhs", "corrupted", (("a", "b"),))
    ]
    twice = {"a": recipe(), "b": recipe(loss={"name": "dpo", "beta": 0.5}), "c": recipe(loss=IPO)}
    assert [(c.ingredient, c.before, c.after) for c in contrasts(twice)] == [
        ("loss.beta", "0.1", "0.5"),
        ("loss", "dpo, beta 0.1", "ipo"),
        ("loss", "ipo", "dpo, beta 0.5"),  # no arm shares its beta with the first level
    ]


def test_axes_are_ingredients_whatever_they_set() -> None:
    recipes = {"x+1": recipe(), "y+1": recipe(loss=IPO, optim={"lr": 3.0}), "x+2": {**recipe(), "pairs": LOW}}
    axes = {name: dict(zip(("kind", "data"), name.split("+"), strict=True)) for name in recipes}
    assert contrasts(recipes, axes) == [
        IngredientContrast("kind", "x", "y", (("x+1", "y+1"),)),
        IngredientContrast("data", "1", "2", (("x+1", "x+2"),)),
    ]


def test_levels_in_words() -> None:
    objective = [{"name": "dpo", "weight": 0.8}, {"name": "sft", "weight": 1.0}]
    assert [level_text(v) for v in (objective, None, True, 3e-5, [], {"a": 1, "b": 0.5})] == [
        "dpo + sft",
        "none",
        "yes",
        "3e-05",
        "none",
        "a 1, b 0.5",
    ]


def scores(values: list[float]) -> list[Score]:
    return [Score(sample_id=f"s{i}", cluster=f"c{i}", values={"x": v}) for i, v in enumerate(values)]


def test_a_mean_over_settings_is_paired_by_seed() -> None:
    """Two settings, two seeds, two images: seed 0 gives (0.5 + 0) / 2, seed 1 gives (1 + 0.5) / 2."""
    metric = {"m": mean("x", "M", higher_is_better=True)}
    zero = scores([0.0, 0.0])
    runs = [(zero, scores(v)) for v in ([1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0])]
    compared = compare(runs, metric, settings=2, resamples=50)["m"]
    assert compared.by_seed == (0.25, 0.75)
    assert compared.difference.value == 0.5
    assert compare(runs[:2], metric, settings=1, resamples=50) == compare(runs[:2], metric, resamples=50)
    # The same setting twice is that setting.
    assert compare(runs[:2] * 2, metric, settings=2, resamples=50) == compare(runs[:2], metric, resamples=50)
    with pytest.raises(ValueError, match="3 runs are not the same seeds in 2 settings"):
        compare(runs[:3], metric, settings=2)


def test_the_front_by_hand() -> None:
    """(less is better, more is better): (2, 5) loses to (1, 5), (3, 4) to everything; equal points do not beat."""
    points = [(1.0, 5.0), (2.0, 5.0), (3.0, 9.0), (3.0, 4.0), (1.0, 5.0), (0.5, 1.0)]
    assert pareto_front(points) == [True, False, True, False, True, True]
    assert pareto_front([(0.1 + 0.2, 1.0), (0.3, 1.0)]) == [True, True], "a rounding beats nobody"


def row(arm: str, bench: str, metric: str, value: float, *, higher: bool | None, primary: bool) -> ArmFinding:
    base = finding(arm, None if arm == "base" else 0.01, higher=higher)
    estimate = Estimate(value=value, stderr=0.1, ci95=(value - 0.1, value + 0.1), n=10)
    return base.model_copy(
        update={"benchmark": bench, "metric": metric, "value": estimate, "primary": primary, "label": metric}
    )


def test_metrics_of_a_trade_off_follow_the_rule() -> None:
    """A primary lower-is-better metric against the first primary higher one, and its own benchmark's guard."""
    rows = [
        row(arm, bench, metric, value, higher=higher, primary=primary)
        for arm, shift in (("base", 0.0), ("x", 0.1))
        for bench, metric, value, higher, primary in (
            ("chair", "hallucinates", 0.5 - shift, False, True),
            ("chair", "length", 10, None, False),
            ("chair", "recall", 0.6 - shift, True, False),
            ("vqa", "accuracy", 0.7 + shift, True, True),
            ("pope", "f1", 0.8, True, True),
        )
    ]
    plots = tradeoffs(rows)
    assert [(t.hallucination.metric, t.capability.metric) for t in plots] == [
        ("hallucinates", "accuracy"),
        ("hallucinates", "recall"),
    ]
    assert [t.front for t in plots] == [("x",), ("x", "base")]
    assert tradeoffs([r for r in rows if r.benchmark != "chair"]) == ()
    for number, plot in enumerate(plots):
        svg = drawings.scatter(plot, {"x": 0}, f"t{number}")
        ET.fromstring(svg.replace("xlink:href", "href"))
        assert "untrained model" in svg and not re.search(r"#0000[0-9a-f]{2}\b", svg)


def test_a_forest_shows_each_arm_once_and_noise_apart() -> None:
    rows = [finding("x", 0.001), finding("<b>&", 0.5, verdict="within noise"), finding("z", 0.01, verdict="worse")]
    svg = drawings.forest([r.model_copy(update={"p_holm": r.p}) for r in rows], "base", "forest")
    root = ET.fromstring(svg.replace("xlink:href", "href"))
    text = "".join(root.itertext())
    assert "x *" in text and "<b>&" in text and "difference to untrained model, points" in text
    assert all(f"var(--{color})" in svg for color in ("better", "noise", "worse"))


def test_mean_curve_by_hand() -> None:
    """Two seeds, four steps, smoothed over one step on either side; the third seed's fourth step is lacking."""
    runs = [[step(n, margin=v) for n, v in enumerate(seed)] for seed in ([0.0, 3.0, 6.0, 9.0], [3.0, 3.0, 3.0])]
    line = mean_curve("x", 0, runs, lambda record: record.margin)
    assert line is not None
    assert list(line.steps) == [1, 2, 3]
    assert line.mean == pytest.approx([2.25, 3.0, 4.5])
    assert line.low == pytest.approx([1.5, 3.0, 3.0]) and line.high == pytest.approx([3.0, 3.0, 6.0])
    assert mean_curve("x", 0, [runs[0], []], lambda record: record.margin) is None


def test_losses_of_other_objectives_do_not_share_a_plot() -> None:
    logs = {name: [[step(n, loss=float(n)) for n in range(20)]] for name in ("a", "b", "c")}
    curves, ends = learning(logs, {"a": {"name": "dpo"}, "b": IPO, "c": {"name": "dpo"}})
    titles = [curve.title for curve in curves]
    assert titles[:3] == ["Loss (dpo)", "Loss (ipo)", "Reward margin"]
    assert "a from 0.50 to 18.50; c from 0.50 to 18.50." in curves[0].alt
    loss = [(end.arm, end.first, end.last) for end in ends if end.quantity.startswith("Loss")]
    assert loss == [("a", 0.5, 18.5), ("c", 0.5, 18.5), ("b", 0.5, 18.5)]


def test_answers_shown_are_taken_by_turns_and_in_order() -> None:
    order = [f"s{n:02d}" for n in range(40)]
    better: dict[str, answers.Change] = dict.fromkeys(order[:20], "better")
    same: dict[str, answers.Change] = dict.fromkeys(order, "same")
    changed: dict[str, dict[str, answers.Change]] = {"x": {**same, **better}, "y": {**same, "s39": "worse"}}
    shown = answers._shown(changed, order)
    assert shown == sorted(shown) and len(shown) == answers.CARDS
    assert {"s03", "s10", "s16", "s39"} <= set(shown)  # three of 20 at even distances, and the only one


def test_better_goes_by_the_metric_s_direction() -> None:
    from sightline.evals.directory import BenchmarkResult

    def result(values: list[float | None]) -> BenchmarkResult:
        found = [Score(sample_id=f"s{i}", cluster="", values={"x": v}) for i, v in enumerate(values)]
        return BenchmarkResult("b", None, (), (), tuple(found), {}, {})  # type: ignore[arg-type]

    before, after = result([0.0, 1.0, 1.0, None]), result([1.0, 0.0, 1.0, 1.0])
    up = Metric(label="", numerator={"x": 1.0}, higher_is_better=True)
    assert answers.changes(before, after, up) == {"s0": "better", "s1": "worse", "s2": "same"}
    down = up.model_copy(update={"higher_is_better": False})
    assert answers.changes(before, after, down) == {"s0": "worse", "s1": "better", "s2": "same"}


def test_the_verdict_s_sentence_follows_the_intervals() -> None:
    result = outcome(
        finding("base", None), finding("x", 0.001), finding("y", 0.5, verdict="within noise"), finding("z", 0.9)
    )
    assert verdict_sentences(result) == [
        "Accuracy (bench, 50.0\N{NARROW NO-BREAK SPACE}% for the untrained model): better: x +10.0 points"
        " (+5.0 to +15.0; also after Holm) and z +10.0 points (+5.0 to +15.0); within noise: y."
    ]
    unnamed = [found.model_copy(update={"primary": False}) for found in result.findings]
    assert primary_metrics(unnamed) == [("bench", "accuracy")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(12480.4, "12,480"), (142.0, "142"), (8.256, "8.26"), (12.34, "12.3"), (0.0312, "0.031"), (0, "0")],
)
def test_amounts(value: float, text: str) -> None:
    assert amount_text(value) == text
