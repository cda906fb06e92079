"""The headline of a study: meanings follow verdicts, numbers are those of the arms, and the report opens with them."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sightline.cli.study import print_outcome
from sightline.errors import InputError
from sightline.evals.comparison import MetricDifference, Verdict
from sightline.records.rows import Estimate
from sightline.study.config import StudyConfig
from sightline.study.headline import ContrastFinding, HeadlineSpec, Meaning, correct_contrasts, meaning
from sightline.study.report.headlines import contrast_sentences, headline_sentence
from sightline.study.report.writing import write_study_report
from sightline.study.results import Outcome
from tests.study.directories import HOSTILE
from tests.study.study_directories import CONFIG, NAME, study

HEADLINE: dict[str, Any] = {
    "benchmark": "shapes",
    "metric": "hallucinating",
    "contrasts": [
        {"title": "With high rho", "arm": "sharp", "against": "ipo"},
        {"title": f"With {HOSTILE}", "arm": "dpo-low", "against": "ipo-low"},
        {"title": "With few steps", "arm": "unfinished", "against": "dpo"},
    ],
    "labels": {"sharp": "DPO", "ipo": "IPO"},
}


@pytest.mark.parametrize(
    ("method", "alternative", "difference", "word"),
    [
        ("better", "better", "better", "method"),
        ("better", "within noise", "better", "method"),
        ("better", "worse", "better", "method"),
        ("better", "better", "worse", "alternative"),
        ("within noise", "better", "worse", "alternative"),
        ("better", "better", "within noise", "both"),
        ("better", "within noise", "within noise", "method alone"),
        ("within noise", "better", "within noise", "alternative alone"),
        ("within noise", "better", "better", "alternative alone"),
        ("within noise", "within noise", "better", "neither"),
        ("within noise", "worse", "better", "harm"),
        ("worse", "worse", "worse", "harm"),
        ("better", "not estimable", "not estimable", "not estimable"),
    ],
)
def test_the_meaning_follows_the_three_verdicts(
    method: Verdict, alternative: Verdict, difference: Verdict, word: Meaning
) -> None:
    assert meaning(method, alternative, difference) == word


def side(value: float, verdict: Verdict, p: float | None = None) -> MetricDifference:
    estimate = Estimate(value=value, stderr=0.01, ci95=(value - 0.02, value + 0.02), n=40)
    return MetricDifference(
        label="lies", unit="share", higher_is_better=False, primary=True, difference=estimate, verdict=verdict,
        by_seed=(value,), images=40, p=p,
    )  # fmt: skip


def outcome(*contrasts: ContrastFinding) -> Outcome:
    return Outcome(
        name="x", about="", baseline="base", seeds=(0, 1), findings=(), costs=(), unequal=(), missing=(),
        contrasts=contrasts,
    )  # fmt: skip


def contrast(method: MetricDifference, alternative: MetricDifference, difference: MetricDifference) -> ContrastFinding:
    assert method.difference is not None and alternative.difference is not None
    word = meaning(method.verdict, alternative.verdict, difference.verdict)
    values = (method.difference.value or 0.0, alternative.difference.value or 0.0)
    return ContrastFinding(
        title="With noise", arm="a", against="b", arm_label="A", against_label="B", benchmark="bench", metric="lies",
        method=method, alternative=alternative, difference=difference, meaning=word,
        ratio=values[1] / values[0] if alternative.verdict == "better" else None,
    )  # fmt: skip


def test_sentences_say_who_helps_and_what_is_enough() -> None:
    better, noise, worse = side(-0.1, "better"), side(-0.01, "within noise"), side(0.1, "worse")
    for sides, expected in (
        ((side(-0.1, "better"), side(-0.034, "better"), side(-0.066, "better")), "A helps, and B has only about 34 %"),
        ((better, noise, better), "A helps, and B is not shown to."),
        ((better, worse, better), "A helps, and B makes it worse."),
        ((better, better, noise), "A and B both help, and no difference between them is shown, so B may be enough."),
        ((noise, better, worse), "B helps more than A, so B is enough."),
        ((better, noise, noise), "A helps, and B is not shown to; which is better stays open."),
        ((noise, better, noise), "B helps, and A is not shown to, so B may be enough."),
        ((noise, noise, noise), "neither A nor B is shown to help."),
        (
            (noise, worse, better),
            "no arm is shown to help, and against the untrained model the result is worse with B.",
        ),
    ):
        assert headline_sentence(outcome(contrast(*sides))).startswith(f"With noise, {expected}")
    assert headline_sentence(outcome()) == "" and contrast_sentences(outcome()) == []


def test_p_of_the_difference_is_corrected_over_the_contrasts_of_the_study() -> None:
    """0.01 * 3, 0.04 * 2; the contrast that is not done counts as 1."""
    undone = contrast(side(-0.1, "better"), side(-0.1, "better"), side(0, "better")).model_copy(
        update={"method": None, "alternative": None, "difference": None, "meaning": "not done"}
    )
    first, second = (contrast(side(-0.1, "better"), side(-0.1, "better"), side(0, "better", p)) for p in (0.04, 0.01))
    found = correct_contrasts([first, undone, second])
    assert [each.difference and each.difference.p_holm for each in found] == [
        pytest.approx(0.08),
        None,
        pytest.approx(0.03),
    ]


def test_the_report_opens_with_the_contrasts_and_their_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = study(tmp_path, count=24, headline=HEADLINE)
    results = write_study_report(plan, NAME, out, resamples=300)
    arms = {f.arm: f for f in results.findings if (f.benchmark, f.metric) == ("shapes", "hallucinating")}
    sharp = results.contrasts[0]
    assert sharp.method is not None and sharp.alternative is not None and sharp.difference is not None
    for found, arm in ((sharp.method, "sharp"), (sharp.alternative, "ipo")):
        assert found.difference == arms[arm].difference and found.verdict == arms[arm].verdict
    assert sharp.difference.difference is not None and sharp.difference.difference.value is not None
    by_hand = (arms["sharp"].value.value or 0.0) - (arms["ipo"].value.value or 0.0)
    assert sharp.difference.difference.value == pytest.approx(by_hand) and by_hand < -0.05
    assert sharp.method.difference is not None and sharp.alternative.difference is not None
    if sharp.meaning == "method" and sharp.ratio is not None:
        assert sharp.ratio * (sharp.method.difference.value or 0) == pytest.approx(sharp.alternative.difference.value)
    assert [found.meaning for found in results.contrasts][2] == "not done"

    markdown = (out / "report.md").read_text(encoding="utf-8")
    html = (out / "report.html").read_text(encoding="utf-8")
    sentence = headline_sentence(results).partition(".")[0]
    assert sentence.startswith("With high rho, DPO ")
    assert markdown.index(sentence) < markdown.index("What objectives and pairs do") < markdown.index("## What each")
    assert html.index(f'<p class="lead">{sentence}') < html.index("What objectives and pairs do")
    assert "With high rho: DPO \N{MINUS SIGN}" in markdown and "DPO minus IPO \N{MINUS SIGN}" in html
    assert "<script>" not in html and "<script" not in markdown
    print_outcome(results)
    assert sentence in " ".join(capsys.readouterr().out.split())


def test_a_headline_names_arms_and_a_metric_that_there_are(tmp_path: Path) -> None:
    def changed(**changes: Any) -> dict[str, Any]:
        return {**CONFIG, "headline": {**HEADLINE, **changes}}

    for change, sentence in (
        ({"contrasts": [{"title": "x", "arm": "dpp", "against": "ipo"}]}, "headline: there is no 'dpp'"),
        ({"labels": {"sfd": "SFT"}}, "headline: there is no 'sfd'"),
        ({"benchmark": "shape"}, "headline.benchmark: there is no 'shape'"),
    ):
        with pytest.raises(ValidationError, match=sentence):
            StudyConfig.model_validate(changed(**change))
    plan, out = study(tmp_path, count=12, headline={**HEADLINE, "metric": "words"})
    with pytest.raises(InputError, match=r"headline\.metric is 'words', which is no metric of shapes with a better"):
        write_study_report(plan, NAME, out, resamples=100)


def test_labels_and_contrasts_give_the_arms_of_the_headline() -> None:
    assert set(HeadlineSpec.model_validate(HEADLINE).arms) == {
        "sharp",
        "ipo",
        "dpo-low",
        "ipo-low",
        "unfinished",
        "dpo",
    }
