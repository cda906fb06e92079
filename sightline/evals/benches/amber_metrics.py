"""AMBER's figures as data: ratios whose denominators begin at 0.001, and F1 of rounded percents, as in its script.

The values they sum are `amber`'s. Shares lie in [0, 1] where the script prints percent; the AMBER score is a number of
percent points, as in the paper.
"""

from sightline.evals.benches.amber_nouns import Tools
from sightline.evals.benchmark import AnyMetric, Derived, Metric

#: What the script's denominators begin with, so that none is zero.
START = 0.001
KINDS = ("state", "number", "action")
_DIMENSIONS = ("existence", "attribute", "relation")


def generative_metrics(tools: Tools) -> dict[str, AnyMetric]:
    """CHAIR, Cover, Hal and Cog of the descriptions; the labels say which official tools were not there."""
    note = f" ({', '.join(tools.lacks)})" if tools.lacks else ""
    return {
        "chair": _ratio("Absent nouns" + note, "absent_nouns", "nouns", better=False, primary=True),
        "cover": _ratio("True objects named" + note, "covered", "present", better=True),
        "clean": _ratio("Descriptions without an absent noun" + note, "clean", "", better=True),
        "hal": Derived(
            label="Descriptions with an absent noun" + note,
            kind="linear",
            parts={"clean": -1},
            constant=1,
            higher_is_better=False,
        ),
        "cog": _ratio("Expected hallucinations named" + note, "expected_named", "expected", better=False),
    }


def discriminative_metrics(part: str) -> dict[str, AnyMetric]:
    """Accuracy, and precision, recall and F1 of "No": over all questions, by dimension and by kind of attribute."""
    found: dict[str, AnyMetric] = {}
    if part in ("", "discriminative"):
        found |= _four("", "discriminative", 1, 0.0001)
    for dimension in _DIMENSIONS:
        if part not in ("", "discriminative", dimension):
            continue
        # Attribute adds up three counters that each begin at 0.001; existence has its own constant in F1.
        starts = len(KINDS) if dimension == "attribute" else 1
        found |= _four(f"{dimension}_", dimension, starts, 0.001 if dimension == "existence" else 0.0001)
        if dimension == "attribute":
            for kind in KINDS:
                found |= _four(f"{kind}_", kind, 1, 0.0001)
    return found


def score_metric() -> Derived:
    """The paper's AMBER score, (100 - CHAIR + F1) / 2, in percent points."""
    return Derived(
        label="AMBER score",
        kind="linear",
        parts={"chair": -50, "f1": 50},
        constant=50,
        higher_is_better=True,
        unit="number",
    )


def _ratio(
    label: str,
    top: str,
    bottom: str,
    *,
    better: bool,
    primary: bool = False,
    group: str = "generative",
    starts: int = 1,
) -> Metric:
    """`starts` counters that each begin at `START` make the denominator; an empty `bottom` counts items."""
    return Metric(
        label=label,
        numerator={top: 1},
        denominator={bottom: 1} if bottom else {},
        epsilon=starts * START,
        group=group,
        higher_is_better=better,
        primary=primary,
    )


def _four(prefix: str, group: str, starts: int, epsilon: float) -> dict[str, AnyMetric]:
    title = f" ({group})" if prefix else ""

    def ratio(label: str, top: str, bottom: str) -> Metric:
        return _ratio(label + title, top, bottom, better=True, group=group, starts=starts)

    return {
        f"{prefix}accuracy": ratio("Accuracy", "right", ""),
        f"{prefix}precision": ratio("Precision of No", "no_and_true", "says_no"),
        f"{prefix}recall": ratio("Recall of No", "no_and_right", "is_no"),
        f"{prefix}f1": Derived(
            label=f"F1 of No{title}",
            kind="harmonic",
            parts={f"{prefix}precision": 1, f"{prefix}recall": 1},
            decimals=3,
            epsilon=epsilon,
            higher_is_better=True,
            primary=not prefix,
        ),
    }
