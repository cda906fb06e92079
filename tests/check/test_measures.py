"""Shortcuts and the language prior, against known numbers."""

import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from sightline.check.findings import CheckConfig
from sightline.check.language_prior import FitCheck, measure_prior
from sightline.check.scan import DrawnRows
from sightline.check.shortcuts import Bootstrap, auc_estimate, mean_estimate, measure_shortcuts
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM
from sightline.records import Pair
from tests.check.datasets import checked, row, write
from tests.models.tiny import TEMPLATE

CONFIG = CheckConfig(resamples=100)
SCORES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20)


@given(SCORES)
def test_the_auc_is_that_of_scikit_learn(scores: list[tuple[int, int]]) -> None:
    chosen, rejected = (np.array(side, float) for side in zip(*scores, strict=True))
    bootstrap = Bootstrap(list(range(len(scores))), 100, 0)
    found = auc_estimate(chosen, rejected, bootstrap)
    labels = np.repeat([1, 0], len(scores))
    assert found.value == pytest.approx(roc_auc_score(labels, np.concatenate([chosen, rejected])))
    turned = auc_estimate(rejected, chosen, bootstrap)
    assert turned.value == pytest.approx(1 - (found.value or 0.0))


def test_an_interval_is_over_clusters() -> None:
    """The same 0/1 values: spread over 400 clusters they are surer than bunched in 20."""
    values = np.repeat([0.0, 1.0], 200)
    single = mean_estimate(values, Bootstrap(list(range(400)), 1000, 0))
    bunched = mean_estimate(values, Bootstrap([n // 20 for n in range(400)], 1000, 0))
    assert single.value == bunched.value == 0.5
    assert single.stderr == pytest.approx(0.5 / math.sqrt(400), rel=0.15)
    assert bunched.stderr == pytest.approx(0.5 / math.sqrt(20), rel=0.15)
    assert mean_estimate(values, Bootstrap([1] * 400, 1000, 0)).ci95 is None
    assert mean_estimate(values[:0], Bootstrap([], 1000, 0)).value is None


def test_certainty_in_few_clusters_is_none() -> None:
    """All of 3 clusters: the lower end of Clopper and Pearson, 0.025 ** (1 / 3)."""
    ones = Bootstrap([1, 2, 3], 100, 0)
    low, high = mean_estimate(np.ones(3), ones).ci95 or (0.0, 0.0)
    assert low == pytest.approx(0.025 ** (1 / 3)) and high == 1
    assert auc_estimate(np.ones(3), np.zeros(3), ones).ci95 == (low, high)
    assert auc_estimate(np.zeros(3), np.ones(3), ones).ci95 == pytest.approx((0.0, 1 - low))


def sample_of(count: int, seed: int = 0) -> DrawnRows:
    """Answers of random words and lengths, both sides alike."""
    draw = random.Random(seed)
    words = [f"word{n}" for n in range(40)]

    def answer() -> str:
        return " ".join(draw.choices(words, k=draw.randint(5, 15))).capitalize() + "."

    return DrawnRows(list(range(count)), [answer() for _ in range(count)], [answer() for _ in range(count)])


def verdicts(sample: DrawnRows) -> dict[str, str]:
    lines, _ = measure_shortcuts(sample, CONFIG, 0)
    return {line.check.removeprefix("give-away: "): line.verdict for line in lines if line.verdict != "ok"}


def test_answers_alike_give_nothing_away() -> None:
    lines, skipped = measure_shortcuts(sample_of(400), CONFIG, 0)
    assert verdicts(sample_of(400)) == {} and skipped == {}
    for line in lines:
        assert line.n == 400 and line.value is not None and line.value.ci95 is not None
        assert line.value.value == pytest.approx(0.5, abs=0.06), line.check


def test_a_word_gives_away_and_nothing_else_does() -> None:
    """Half of the chosen answers have a word that a quarter of the rejected have: the AUC is at most 0.625."""
    sample = sample_of(1000)
    sample.chosen = [t + " indeed" if n % 2 else t + " so" for n, t in enumerate(sample.chosen)]
    sample.rejected = [t + " indeed" if n % 4 == 0 else t + " so" for n, t in enumerate(sample.rejected)]
    lines, _ = measure_shortcuts(sample, CONFIG, 0)
    found = next(line.value for line in lines if line.check == "give-away: bag of words")
    assert found is not None and found.value == pytest.approx(0.625, abs=0.05)
    always = sample_of(400)
    always.rejected = [f"{text} however" for text in always.rejected]
    assert verdicts(always)["bag of words"] == "bad"


def test_a_word_of_one_cluster_teaches_nothing_about_others() -> None:
    """Every cluster has marks of its own: only a classifier that saw the held-out cluster could use them."""
    sample = sample_of(400)
    sample.clusters = [n // 8 for n in range(400)]
    sample.chosen = [f"{t} mark{n // 8}" for n, t in enumerate(sample.chosen)]
    sample.rejected = [f"{t} sign{n // 8}" for n, t in enumerate(sample.rejected)]
    assert "bag of words" not in verdicts(sample)


def test_length_within_pairs_is_found_where_lengths_over_all_answers_hide_it() -> None:
    sample = sample_of(300)
    sample.chosen = [f"{text} also" for text in sample.rejected]
    lines, _ = measure_shortcuts(sample, CONFIG, 0)
    words = next(line for line in lines if line.check == "give-away: words")
    assert words.value is not None and words.within is not None
    assert (words.value.value or 1) < 0.65 and words.within.value == 1.0
    assert words.verdict == "bad"


def test_a_first_word_and_a_full_stop() -> None:
    sample = sample_of(300)
    sample.chosen = [f"Yes {text}".rstrip(".") for text in sample.chosen]
    found = verdicts(sample)
    assert found["first word"] == "bad" and found["full stop at the end"] == "bad"
    assert "markup" not in found


def test_few_pairs_and_one_cluster_are_said(tmp_path: Path) -> None:
    found = checked(write(tmp_path / "pairs", [row(0)]), tmp_path / "out")
    assert found.report.skipped["give-aways by words"] == "cross-validation needs two clusters"
    assert found.line("give-away: words").value is not None and not found.report.is_bad


def test_no_more_pairs_than_asked_for_are_measured(tmp_path: Path) -> None:
    dataset = write(tmp_path / "pairs", [row(n) for n in range(9)])
    assert checked(dataset, tmp_path / "out", settings={"sample": 4}).line("give-away: words").n == 4
    none = checked(dataset, tmp_path / "none", settings={"sample": 0})
    assert none.report.skipped["give-aways"] == "no pair was drawn"


def pair(number: int, **columns: Any) -> Pair:
    pair: Pair = Pair.model_validate(row(number, **columns))
    return pair


def test_the_prior_is_the_margin_without_the_picture(vlm: VLM) -> None:
    pairs = [pair(n, prompt=f"<image>\nHow many cows, {n}?") for n in range(5)]
    margins = []
    for one in pairs:
        logps = answer_logps(
            vlm, [ScoreRequest(Prefix((), one.prompt.removeprefix("<image>\n")), (one.chosen, one.rejected))]
        )
        sums = logps.sums()[0].tolist()
        margins.append(sums[0] - sums[1])
    lines, skipped = measure_prior(vlm, list(enumerate(pairs)), CONFIG, 0)
    share, _, margin = lines
    assert skipped == {} and share.value is not None and margin.value is not None
    assert share.value.value == np.mean(np.array(margins) > 0)
    assert margin.value.value == pytest.approx(np.mean(margins), abs=1e-3)
    turned = [one.model_copy(update={"chosen": one.rejected, "rejected": one.chosen}) for one in pairs]
    opposite = measure_prior(vlm, list(enumerate(turned)), CONFIG, 0)[0][2].value
    assert opposite is not None and opposite.value == pytest.approx(-np.mean(margins), abs=1e-3)


def test_a_pair_that_cannot_be_scored_is_unscored_and_takes_none_along(vlm: VLM) -> None:
    pairs = [pair(0), pair(1, chosen="A cup. " * 200), pair(2)]
    lines, _ = measure_prior(vlm, list(enumerate(pairs)), CONFIG, 0)
    assert lines[0].value is not None and (lines[0].value.n, lines[0].value.unscored) == (2, 1)
    assert measure_prior(vlm, [(0, pairs[1])], CONFIG, 0)[0] == []


def test_what_the_model_cannot_take(model_dir: Path, tmp_path: Path) -> None:
    rows = [row(n) for n in range(6)]
    rows[2]["chosen"] = "A red cup and a dog. " * 100
    rows[4]["prompt"] = "What </s> is it?"
    rows[5]["history"] = [{"role": "user", "text": "Hello " * 300}, {"role": "assistant", "text": "Hi."}]
    found = checked(write(tmp_path / "pairs", [*rows]), tmp_path / "out", model=model_dir)
    assert found.rows["too-long"] == [3, 6] and found.rows["refused"] == [5]
    assert "'</s>'" in found.reason("refused")
    assert found.line("language prior: share").n == 3
    assert found.line("give-away: tokens").n == 3


#: As Gemma's and Mistral's: no system turn, turns of user and assistant in turn.
REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate') }}{% endif %}{% endfor %}" + TEMPLATE
)


def test_a_template_that_raises_is_a_finding(model_dir: Path, tmp_path: Path) -> None:
    """Also where a row of the same pictures has shown how many tokens these take, and bytes would say that it fits."""
    model = Path(shutil.copytree(model_dir, tmp_path / "model"))
    (model / "chat_template.jinja").write_text(REFUSING)
    rows = [row(n, prompt="What?", chosen=f"{n} cups.", rejected=f"{n} dogs.") for n in range(4)]
    rows[2]["history"] = [{"role": "system", "text": "Be brief."}]
    rows[3]["history"] = [{"role": "user", "text": "Hi."}]
    found = checked(write(tmp_path / "pairs", [*rows]), tmp_path / "out", model=model)
    assert found.rows["refused"] == [3, 4]
    assert "refuses it (System role not supported); its turns are system, user" in found.reason("refused")


def test_the_short_way_says_what_the_encoder_says(vlm: VLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows on both sides of the limit of 256 positions, with and without the bound by bytes."""
    write(tmp_path, [], pictures=1)
    image = tmp_path / "images/0.png"
    texts = ["a" * n for n in (1, 40, 120, 180, 200, 220, 260)] + ["\u00e9\ufdfa" * n for n in (3, 8, 40)]
    quick = FitCheck(vlm)
    quick.problem(pair(0), ((96, 72),), lambda: (image,))
    encoded: list[str] = []

    def paths(text: str) -> tuple[Path, ...]:
        encoded.append(text)
        return (image,)

    for text in texts:
        one = pair(0, chosen=text)
        problem = quick.problem(one, ((96, 72),), lambda text=text: paths(text))  # type: ignore[misc]
        assert problem == FitCheck(vlm).problem(one, ((96, 72),), lambda: (image,))
    assert len(encoded) < len(texts), "some rows need no encoder"
