"""Raters' agreement against published examples, scikit-learn, and sums worked by hand; and what a directory gives."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from sightline.data.labels import RaterFile
from sightline.errors import InputError
from sightline.evals.agreement import (
    MISSING,
    cohen_kappa,
    cohen_sums,
    fleiss_kappa,
    fleiss_sums,
    krippendorff_alpha,
    krippendorff_sums,
    measure_agreement,
)
from sightline.evals.statistics import estimate_figure
from sightline.records import AnswerAnnotation, LabelItem, RatedAnswer, Rating, append_rows

#: Fourteen raters put ten subjects into five categories (Fleiss' kappa, a worked example of many textbooks).
FLEISS = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
#: Four observers, twelve units, some missing (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", C).
KRIPPENDORFF = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
    [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
]
NOMINAL = 1 - np.eye(5)
SQUARES = np.subtract.outer(np.arange(5.0), np.arange(5.0)) ** 2


def test_fleiss_published_example() -> None:
    codes = np.array([np.repeat(np.arange(5), row) for row in FLEISS])
    assert float(fleiss_kappa(fleiss_sums(codes, 5).sum(axis=0))) == pytest.approx(0.20993, abs=5e-6)


def test_krippendorff_published_example() -> None:
    sums = krippendorff_sums(np.array(KRIPPENDORFF).T - 1, 5).sum(axis=0)
    assert float(krippendorff_alpha(sums, NOMINAL)) == pytest.approx(0.743, abs=5e-4)
    assert float(krippendorff_alpha(sums, SQUARES)) == pytest.approx(0.849, abs=5e-4)


def test_cohen_by_hand() -> None:
    # Of 50 proposals both say yes to 20 and no to 15; 5 and 10 are left: p_o 0.7, p_e 0.5, kappa 0.4.
    codes = np.array([[0, 0]] * 20 + [[0, 1]] * 5 + [[1, 0]] * 10 + [[1, 1]] * 15)
    assert float(cohen_kappa(cohen_sums(codes, 2).sum(axis=0), 1 - np.eye(2))) == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize(("distances", "weights"), [(NOMINAL, None), (SQUARES, "quadratic")])
def test_cohen_is_scikit_learns(distances: np.ndarray, weights: str | None) -> None:
    rng = np.random.default_rng(7)
    first = rng.integers(5, size=200)
    second = np.where(rng.random(200) < 0.6, first, rng.integers(5, size=200))
    mine = float(cohen_kappa(cohen_sums(np.stack([first, second], axis=1), 5).sum(axis=0), distances))
    assert mine == pytest.approx(cohen_kappa_score(first, second, labels=range(5), weights=weights), abs=1e-12)


def test_two_raters_without_gaps_fleiss_is_scotts_pi() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 1], [1, 1]])
    # p_o 3/4; shares 3/8 and 5/8: p_e 34/64; (3/4 - 34/64) / (30/64) = 14/30
    assert float(fleiss_kappa(fleiss_sums(codes, 2).sum(axis=0))) == pytest.approx(14 / 30, abs=1e-12)


def test_one_value_only_is_undefined() -> None:
    same = np.zeros((5, 3), dtype=int)
    assert np.isnan(fleiss_kappa(fleiss_sums(same, 2).sum(axis=0)))
    assert np.isnan(cohen_kappa(cohen_sums(same[:, :2], 2).sum(axis=0), 1 - np.eye(2)))


def test_who_said_nothing_does_not_count() -> None:
    codes = np.array([[0, 0], [0, 1], [1, 1], [1, 1]])
    gaps = np.concatenate([codes, [[MISSING, 1], [0, MISSING], [MISSING, MISSING]]])
    for sums in (cohen_sums, fleiss_sums, krippendorff_sums):
        np.testing.assert_array_equal(sums(gaps, 2).sum(axis=0), sums(codes, 2).sum(axis=0))


def test_the_interval_covers() -> None:
    """Raters who agree on 60 % and draw the rest: kappa is 0.6, and most of 60 intervals of 80 items hold it."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        first = rng.integers(2, size=80)
        second = np.where(rng.random(80) < 0.6, first, rng.integers(2, size=80))
        sums = cohen_sums(np.stack([first, second], axis=1), 2)
        estimate = estimate_figure(sums, lambda table: cohen_kappa(table, 1 - np.eye(2)), scored=80, resamples=400)
        assert estimate.ci95 is not None
        covered += estimate.ci95[0] <= 0.6 <= estimate.ci95[1]
    assert 52 <= covered <= 60


def labels(folder: Path, verdicts: dict[str, str], **noted: AnswerAnnotation) -> None:
    """Items of one picture each, and raters whose verdicts are a letter an item: f, s, t, or - for a skip."""
    names = {"f": "first", "s": "second", "t": "tie", "-": "skip"}
    count = max(map(len, verdicts.values()))
    answer = {
        "first": RatedAnswer(id="chosen", text="one two three"),
        "second": RatedAnswer(id="rejected", text="four"),
    }
    items = [
        LabelItem.model_validate({"id": f"i{n}", "sample_id": f"i{n}", "prompt": "?", "cluster": f"c{n}", **answer})
        for n in range(count)
    ]
    append_rows(folder / "items.jsonl", items)
    for rater, letters in verdicts.items():
        file = RaterFile.open(folder, rater)
        for n, letter in enumerate(letters):
            if letter != " ":
                row = {
                    "item": f"i{n}",
                    "rater": rater,
                    "verdict": names[letter],
                    "first": noted.get(rater, AnswerAnnotation()),
                }
                file.add(Rating.model_validate(row))


def test_a_directory_of_two(tmp_path: Path) -> None:
    labels(tmp_path, {"ann": "ffss-t", "bo": "fsss f"})
    (found,) = measure_agreement(tmp_path, resamples=200)
    assert (found.about, found.measure, found.raters) == ("verdict", "Cohen's kappa", ("ann", "bo"))
    # Items 0 to 3 and 5: 3 of 5 agree; f 2, s 2, t 1 against f 2, s 3: p_e (4 + 6) / 25; (0.6 - 0.4) / 0.6
    assert found.estimate.value == pytest.approx(1 / 3, abs=1e-12)
    assert (found.observed, found.estimate.n) == (0.6, 5)


def test_a_directory_of_three_with_marks_and_grades(tmp_path: Path) -> None:
    marked = {
        "ann": AnswerAnnotation(marks=((0, 7),), grades={"faithful": 1}),
        "bo": AnswerAnnotation(marks=((0, 3),), grades={"faithful": 5}),
        "cy": AnswerAnnotation(grades={"faithful": 5}),
    }
    labels(tmp_path, {"ann": "fst", "bo": "fss", "cy": "fsf"}, **marked)
    found = {(one.about, one.measure, one.raters): one for one in measure_agreement(tmp_path, resamples=200)}
    everybody = ("ann", "bo", "cy")
    # P_i 1, 1, 0; shares 4/9, 4/9, 1/9: p_e 33/81; (2/3 - 33/81) / (48/81)
    assert found["verdict", "Fleiss' kappa", everybody].estimate.value == pytest.approx((54 - 33) / 48, abs=1e-12)
    # Words of an item: one two three four; ann marks two, bo one: 3 of 4 agree, p_e (2*1 + 2*3) / 16
    words = found["marked words", "Cohen's kappa", ("ann", "bo")]
    assert words.estimate.value == pytest.approx((3 / 4 - 1 / 2) / (1 / 2), abs=1e-12)
    assert words.estimate.n == 12
    grades = found["grades: faithful", "Krippendorff's alpha, interval", everybody]
    assert grades.estimate.n == 3
    assert ("grades: faithful", "Fleiss' kappa", everybody) not in found


def test_no_two_on_one_item(tmp_path: Path) -> None:
    labels(tmp_path, {"ann": "f-", "bo": " s"})
    with pytest.raises(InputError, match=r"no two raters rated the same item \(raters: ann, bo\)"):
        measure_agreement(tmp_path)
