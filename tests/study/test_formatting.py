"""Numbers as people read them."""

import pytest

from sightline.evals.metrics import Unit
from sightline.report.formatting import (
    difference_text,
    effect_text,
    interval_text,
    p_text,
    value_text,
)

MINUS, NARROW = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}"


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (0.24149, "share", f"24.1{NARROW}%"),
        (1.0, "share", f"100.0{NARROW}%"),
        (0.0003, "share", f"0.03{NARROW}%"),  # never written as zero
        (17.321, "number", "17.32"),
        (-3.0, "number", f"{MINUS}3.00"),
        (None, "share", "\N{EN DASH}"),
    ],
)
def test_values(value: float | None, unit: Unit, written: str) -> None:
    assert value_text(value, unit) == written


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.012, "+1.2"), (-0.0681, f"{MINUS}6.8"), (0.0, "0.0"), (-1e-9, "0.00"), (None, "\N{EN DASH}")],
)
def test_differences_carry_their_sign(value: float | None, written: str) -> None:
    assert difference_text(value, "share") == written


def test_an_interval_that_excludes_zero_never_seems_to_touch_it() -> None:
    assert interval_text((0.0002, 0.031), "share", signed=True) == "+0.02 to +3.10"
    assert interval_text((-0.091, -0.045), "share", signed=True) == f"{MINUS}9.1 to {MINUS}4.5"
    assert interval_text((0.153, 0.287), "share", signed=False) == "15.3 to 28.7"
    assert interval_text(None, "share", signed=True) == "no interval"


@pytest.mark.parametrize(
    ("p", "written"),
    [(0.01249, "0.012"), (0.001, "0.001"), (0.00099, "<0.001"), (1.0, "1.000"), (None, "\N{EN DASH}")],
)
def test_values_of_p(p: float | None, written: str) -> None:
    assert p_text(p) == written


def test_the_size_of_a_difference_has_no_sign() -> None:
    assert effect_text(0.0421, "share") == "4.2 points"
    assert effect_text(0.0003, "share") == "0.03 points"
    assert effect_text(0.312, "number") == "0.31"
