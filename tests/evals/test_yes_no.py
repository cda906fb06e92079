"""The official POPE parse, and the confusion metrics worked by hand."""

from fractions import Fraction

import pytest

from sightline.evals.statistics import estimate
from sightline.evals.yes_no import YES_NO_METRICS, parse_yes_no, score_yes_no
from sightline.records.rows import Answer


def answer(text: str, number: int = 0) -> Answer:
    return Answer(sample_id=f"q{number}", cluster=f"image-{number // 2}", text=text, tokens=3, finished=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes, there is a cup.", True),
        ("No, there is no cup.", False),
        ("no", False),
        ("No,", False),
        ("There is not a cup here.", False),
        ("Yes. There is no cup.", True),  # only the first sentence counts
        ("There is a knot and a nose.", True),  # whole words only
        ("NO", True),  # case matters, by the official rule
        ("No\nThere is none", True),  # split at spaces only, by the official rule
        ("Not really", True),  # "Not" is not in the official list
        ("It, no, is absent", False),
        ("", True),
        (".no", True),
    ],
)
def test_official_parse(text: str, expected: bool) -> None:
    assert parse_yes_no(text) is expected


def test_confusion_metrics_by_hand() -> None:
    """tp 3, fp 2, tn 4, fn 1, one of the false positives empty."""
    answered = [("Yes.", True)] * 3 + [("Yes.", False), ("", False)] + [("No.", False)] * 4 + [("No.", True)]
    rows = [score_yes_no(answer(text, n), truth=truth) for n, (text, truth) in enumerate(answered)]
    values = {name: e.value for name, e in estimate(rows, YES_NO_METRICS, resamples=100).items()}
    expected = {
        "accuracy": Fraction(7, 10),
        "precision": Fraction(3, 5),
        "recall": Fraction(3, 4),
        "f1": Fraction(2, 3),
        "yes_ratio": Fraction(5, 10),  # of the predictions: the questions' own ratio is 4 / 10
        "empty": Fraction(1, 10),
    }
    assert values == pytest.approx({name: float(value) for name, value in expected.items()})


def test_never_yes_leaves_precision_undefined_and_f1_zero() -> None:
    rows = [score_yes_no(answer("No.", n), truth=n % 2 == 0) for n in range(8)]
    estimates = estimate(rows, YES_NO_METRICS, resamples=100)
    assert estimates["precision"].value is None
    assert (estimates["f1"].value, estimates["recall"].value, estimates["yes_ratio"].value) == (0.0, 0.0, 0.0)


def test_details_are_for_people() -> None:
    assert score_yes_no(answer("Yes."), truth=False).details == {"parsed": "yes", "truth": "no"}
