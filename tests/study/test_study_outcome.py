"""What is made of a study's findings: Holm over the whole of it, stars and bold, and what was not equal."""

import csv
import io

import pytest

from sightline.evals.comparison import Verdict, with_holm
from sightline.records.rows import Estimate
from sightline.study.report.study_results import COLUMNS, StudyResults, csv_text
from sightline.study.report.words import starred
from sightline.study.results import ArmFinding, Cost, Outcome, _is_quotable, _unequal


def finding(arm: str, p: float | None, *, higher: bool | None = True, verdict: Verdict = "better") -> ArmFinding:
    value = Estimate(value=0.5, stderr=0.1, ci95=(0.4, 0.6), n=10)
    difference = None if p is None else Estimate(value=0.1, stderr=0.02, ci95=(0.05, 0.15), n=10)
    return ArmFinding(
        arm=arm,
        benchmark="bench",
        metric="accuracy" if higher is not None else "length",
        label="Accuracy",
        unit="share",
        higher_is_better=higher,
        primary=True,
        value=value,
        difference=difference,
        verdict="" if p is None else verdict,
        by_seed=(0.1,),
        images=10,
        p=p,
    )


def cost(arm: str, rows: float | None, tokens: float) -> Cost:
    return Cost(
        arm=arm,
        seeds=1,
        pair_seconds=1,
        train_seconds=2,
        eval_seconds=3,
        rows=rows,
        steps=4,
        answer_tokens=tokens,
    )


def outcome(*findings: ArmFinding) -> Outcome:
    return Outcome(
        name="a | b",
        about="",
        baseline="base",
        seeds=(0,),
        findings=with_holm(findings, _is_quotable),
        costs=(cost("x", 8, 100),),
        unequal=(),
        missing=("late",),
    )


def test_holm_takes_every_difference_with_a_direction() -> None:
    """p = 0.01, 0.03 and 0.04 of a family of three: 0.03, 0.06, 0.06; baseline and length are no part of it."""
    result = outcome(
        finding("base", None),
        finding("x", 0.03),
        finding("y", 0.01),
        finding("z", 0.04),
        finding("x", 0.9, higher=None),
    )
    assert [f.p_holm for f in result.findings] == [
        None,
        pytest.approx(0.06),
        pytest.approx(0.03),
        pytest.approx(0.06),
        None,
    ]


def test_stars_and_rows() -> None:
    result = outcome(
        finding("base", None), finding("x", 0.03), finding("y", 0.01), finding("z", 0.5, verdict="within noise")
    )
    assert [found.arm for found in result.findings if starred(found)] == ["y"]
    results = StudyResults(**dict(result), effects=(), tradeoffs=(), pair_sets=(), learned=())
    rows = list(csv.DictReader(io.StringIO(csv_text(results))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 4 + 6
    base, x = rows[0], rows[1]
    assert (base["arm"], base["against"], base["value"], base["n"], base["difference"]) == ("base", "", "0.5", "10", "")
    assert (x["against"], x["difference"], x["difference_high"], x["p"], x["images"]) == (
        "base",
        "0.1",
        "0.15",
        "0.03",
        "10",
    )
    assert [(row["metric"], row["value"]) for row in rows if row["table"] == "cost"][1] == ("train_seconds", "2.0")


def test_what_was_not_equal_is_said() -> None:
    assert _unequal([cost("x", 8, 100), cost("y", 8, 109)]) == ()
    sentences = _unequal([cost("x", 8, 100), cost("y", 9, 120), cost("z", None, 100)])
    assert sentences == (
        "Arms differ in pairs or prompts: from 8 (x) to 9 (y).",
        "Arms differ in answer tokens: from 100 (x) to 120 (y).",
    )
