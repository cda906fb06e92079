"""Number formatting: shares in percent, differences in signed points, a typographic minus.

Nothing is computed here. `rendering` offers these functions to the templates as filters.
"""

from sightline.evals.metrics import Unit

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"
NOTHING = "\N{EN DASH}"
LEAST_P = 0.001


def value_text(value: float | None, unit: Unit) -> str:
    """A value: `24.1 %` for a share, `17.32` for a number, a dash for None."""
    if value is None:
        return NOTHING
    scaled = _scaled(value, unit)
    return _signless(scaled, _decimals(unit, scaled)) + (f"{NARROW}%" if unit == "share" else "")


def difference_text(value: float | None, unit: Unit) -> str:
    """A signed difference (`+1.2`), in percentage points for a share; a dash for None."""
    if value is None:
        return NOTHING
    scaled = _scaled(value, unit)
    return _signed(scaled, _decimals(unit, scaled))


def interval_text(interval: tuple[float, float] | None, unit: Unit, *, signed: bool) -> str:
    """An interval, `+4.5 to +9.1`, both ends in the same precision; `no interval` for None."""
    if interval is None:
        return "no interval"
    ends = [_scaled(end, unit) for end in interval]
    decimals = _decimals(unit, *ends)
    low, high = ((_signed if signed else _signless)(end, decimals) for end in ends)
    return f"{low} to {high}"


def p_text(p: float | None) -> str:
    """A p value, `0.012`, or `<0.001` below the resolution of the resamples; a dash for None."""
    if p is None:
        return NOTHING
    return f"<{LEAST_P}" if p < LEAST_P else f"{p:.3f}"


def effect_text(effect: float, unit: Unit) -> str:
    """The size of a difference, without a sign: `4.2 points` for a share, `0.31` for a number."""
    scaled = _scaled(effect, unit)
    return _signless(scaled, _decimals(unit, scaled)) + (" points" if unit == "share" else "")


def amount_text(value: float) -> str:
    """A count or a size with a readable number of digits: `12,480`, `142`, `8.3`, `0.031`."""
    if value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}".replace("-", MINUS)
    text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.2g}"
    return text.replace("-", MINUS)


def _scaled(value: float, unit: Unit) -> float:
    return 100 * value if unit == "share" else value


def _decimals(unit: Unit, *values: float) -> int:
    """One decimal for percent and two for numbers; one more if a small value would otherwise be written as zero."""
    decimals = 1 if unit == "share" else 2
    if any(0 < abs(value) < 0.5 * 10**-decimals for value in values):
        decimals += 1
    return decimals


def _signed(value: float, decimals: int) -> str:
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else MINUS) + text


def _signless(value: float, decimals: int) -> str:
    """Text without a plus sign."""
    return _signed(value, decimals).removeprefix("+")
