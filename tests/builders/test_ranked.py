"""Ranked pairs: the order of scores, ties and margins by hand; real answers, a plain judge, and the lab's oracle."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.builders.builder import BuildResult
from sightline.builders.ranked import (
    RANKED,
    GradedAnswer,
    RankedConfig,
    build_ranked,
    build_with_judge,
    overall_score,
    select_pairs,
)
from sightline.builders.sampled_answers import answer_requests, sample_answers
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import write_samples
from sightline.errors import InputError
from sightline.judges.judge import Judge, OracleJudgeConfig, Verdict
from sightline.lab.words import WorldConfig
from sightline.lab.world import sample_scene
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import Generation, JudgeInput, make_prefix
from sightline.models.vlm import VLM
from sightline.records import Sample
from tests.builders.builders import assert_goes_on, assert_rows_stand_alone, build_results, make_context, numbers_of
from tests.builders.conftest import DESCRIBE, LEARNED

CONFIG = RankedConfig(
    judge=OracleJudgeConfig(name="oracle"), max_new_tokens=8, batch_size=5, wave=3, unfinished=True, temperature=1.0
)


class Letters:
    """A judge that likes long answers, and grades how many vowels they have; what has a z or is marked it leaves."""

    identity = "letters"

    def __init__(self) -> None:
        self.inputs: list[JudgeInput] = []

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        self.inputs += inputs
        return [self._verdict(one.answer) for one in inputs]

    def _verdict(self, answer: str) -> Verdict:
        if "e" in answer:
            return Verdict(None, note="an e")
        return Verdict(
            len(answer), {"vowels": sum(letter in "aiou" for letter in answer), "words": len(answer.split())}
        )


@pytest.fixture
def context(samples_dir: Path, vlm: VLM, tmp_path: Path) -> RunContext:
    return make_context(samples_dir, tmp_path, vlm)


def build(samples: list[Sample], context: RunContext, judge: Judge, **changes: object) -> list[BuildResult]:
    return list(build_with_judge(samples, context, CONFIG.model_copy(update=changes), judge))


def graded(*scores: float, cut_off: Sequence[int] = ()) -> list[GradedAnswer]:
    return [
        GradedAnswer(Generation(f"t{number}", 1, number not in cut_off), score, Verdict(score))
        for number, score in enumerate(scores)
    ]


def texts(found: Sequence[tuple[GradedAnswer, GradedAnswer]]) -> list[str]:
    return [better.answer.text + worse.answer.text for better, worse in found]


# --- which answers make a pair ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "scores", "expected", "tied"),
    [
        ("best-worst", (2, 5, 1, 3), ["t1t2"], 0),
        ("best-worst", (2, 2), [], 1),
        ("best-worst", (1, 3, 3, 1), ["t1t3"], 0),
        ("all", (2, 5, 1), ["t1t2", "t1t0", "t0t2"], 0),
        ("all", (2, 2, 1), ["t0t2", "t1t2"], 1),
        ("all", (1, 1, 1), [], 3),
        ("adjacent", (2, 5, 1, 3), ["t1t3", "t3t0", "t0t2"], 0),
        ("adjacent", (2, 2, 1), ["t1t2"], 1),
    ],
)
def test_pairs_by_the_order_of_scores(pairs: str, scores: tuple[int, ...], expected: list[str], tied: int) -> None:
    found, left_out = select_pairs(graded(*scores), CONFIG.model_copy(update={"pairs": pairs}))
    assert texts(found) == expected
    assert left_out == {"tied_pairs": tied, "close_pairs": 0}


def test_a_margin_leaves_out_what_is_too_close() -> None:
    found, left_out = select_pairs(graded(1, 2, 4), CONFIG.model_copy(update={"margin": 2.0}))
    assert texts(found) == ["t2t0", "t2t1"] and left_out == {"tied_pairs": 0, "close_pairs": 1}


def test_an_answer_that_was_cut_off_is_better_than_none_unless_wanted() -> None:
    scores = graded(1, 2, 4, cut_off=[2])
    for pairs, expected in (("best-worst", ["t1t0"]), ("all", ["t1t0"]), ("adjacent", ["t1t0"])):
        strict = CONFIG.model_copy(update={"pairs": pairs, "unfinished": False})
        assert texts(select_pairs(scores, strict)[0]) == expected
    assert texts(select_pairs(scores, CONFIG.model_copy(update={"pairs": "best-worst"}))[0]) == ["t2t0"]
    worst = CONFIG.model_copy(update={"pairs": "best-worst", "unfinished": False})
    assert select_pairs(graded(1, 2, 4, cut_off=[1, 2]), worst)[0] == []
    assert texts(select_pairs(graded(1, 2, cut_off=[0]), worst)[0]) == ["t1t0"]  # it may be the worse one


@given(
    st.lists(st.integers(0, 5), max_size=7),
    st.sampled_from(["best-worst", "all", "adjacent"]),
    st.integers(0, 3),
    st.sets(st.integers(0, 6)),
)
def test_the_better_one_is_better(scores: list[int], pairs: str, margin: int, cut_off: set[int]) -> None:
    config = CONFIG.model_copy(update={"pairs": pairs, "margin": float(margin), "unfinished": False})
    found, left_out = select_pairs(graded(*scores, cut_off=sorted(cut_off)), config)
    for better, worse in found:
        assert better.score - worse.score >= max(margin, 1) and better.answer.finished
    assert len(set(texts(found))) == len(found)
    gaps = [better.score - worse.score for better, worse in found]
    assert gaps == sorted(gaps, reverse=True)
    if pairs == "all" and not cut_off & set(range(len(scores))):
        assert len(found) + sum(left_out.values()) == len(scores) * (len(scores) - 1) / 2
    if pairs == "best-worst":
        assert len(found) + sum(left_out.values()) <= 1


def test_the_mean_over_aspects() -> None:
    verdict = Verdict(7.0, {"help": 4.0, "faith": 1.0, "ethics": 5.0})
    assert overall_score(verdict, ()) == 7.0
    assert overall_score(verdict, ("help", "faith")) == 2.5
    assert overall_score(verdict, ("help", "style")) is None
    assert overall_score(Verdict(None, {"help": 4.0}), ("help",)) is None


# --- the builder ------------------------------------------------------------------------------------------------------


def test_pairs_are_the_answers_by_their_scores(samples: list[Sample], context: RunContext) -> None:
    judge = Letters()
    for result, sample in zip(build(samples, context, judge, answers=5), samples, strict=True):
        (answers,) = sample_answers(
            context, [answer_requests(sample, make_prefix(sample, context.folder), 0, 5)], CONFIG
        )
        texts = [answer.text.strip() for answer in answers or ()]
        scored = sorted({text for text in texts if text and "e" not in text}, key=len, reverse=True)
        expected = {(a, b) for a in scored for b in scored if len(a) > len(b)}
        assert {(pair.chosen, pair.rejected) for pair in result.pairs} == expected
        assert result.tallies["generated_tokens"] == sum(answer.tokens for answer in answers or ())
        assert result.tallies["judged_answers"] == len({text for text in texts if text})
        assert result.tallies["unscored_answers"] == len({text for text in texts if "e" in text})
        for number, pair in enumerate(result.pairs):
            assert pair.id == f"{sample.id}/ranked-{number:03d}" and pair.prompt == sample.prompt
            assert pair.provenance["chosen_score"] == len(pair.chosen)
            assert pair.provenance["rejected_score"] == len(pair.rejected)
            assert pair.provenance["rejected_aspects"]["words"] == len(pair.rejected.split())
            assert (pair.provenance["judge"], pair.provenance["answers"]) == ("letters", 5)
            assert pair.provenance["tokens"] == result.tallies["generated_tokens"]
    assert {one.reference for one in judge.inputs} <= {sample.reference for sample in samples}
    assert all(one.prefix.images[0].is_absolute() for one in judge.inputs)


def test_aspects_order_otherwise(samples: list[Sample], context: RunContext) -> None:
    for result in build(samples, context, Letters(), answers=6, aspects=("vowels", "words")):
        for pair in result.pairs:
            vowels, words = (pair.provenance["chosen_aspects"][name] for name in ("vowels", "words"))
            assert pair.provenance["chosen_score"] == (vowels + words) / 2 > pair.provenance["rejected_score"]


class Fixed:
    """A judge of one opinion."""

    identity = "fixed"

    def __init__(self, score: float | None) -> None:
        self._score = score

    def score(self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        return [Verdict(self._score)] * len(inputs)


def test_why_there_is_no_pair(samples: list[Sample], context: RunContext, fluent_dir: Path) -> None:
    def reasons(results: list[BuildResult]) -> set[str]:
        assert not any(one.pairs for one in results)
        return {one.dropped for one in results}

    assert reasons(build(samples, context, Fixed(None))) == {"fewer than two answers were scored"}
    assert reasons(build(samples, context, Fixed(1.0))) == {"all scores are equal"}
    assert reasons(build(samples, context, Letters(), margin=1000.0)) <= {
        "no two scores differ by the margin",
        "fewer than two answers were scored",
        "all scores are equal",
    }
    assert "no two scores differ by the margin" in reasons(build(samples, context, Letters(), margin=1000.0))
    assert "max_new_tokens cut every better answer off" in {
        one.dropped for one in build(samples, context, Letters(), max_new_tokens=3, unfinished=False)
    }
    long = samples[0].model_copy(update={"prompt": "cup " * 300})
    assert reasons(build([long], context, Letters())) == {"too long for the model"}
    judge = Letters()
    known = samples[0].model_copy(update={"prompt": LEARNED[0][1]})
    fluent = make_context(context.folder, context.scratch, load_vlm(fluent_dir))
    alike = build([known], fluent, judge, temperature=0.01, max_new_tokens=40)
    assert reasons(alike) == {"fewer than two different answers"} and judge.inputs == []
    assert alike[0].tallies["generated_tokens"] > 4 * 10 and alike[0].tallies["judged_answers"] == 0


def test_a_row_stands_alone(samples: list[Sample], context: RunContext) -> None:
    def by_letters(some: Any, with_tools: RunContext, config: RankedConfig) -> Any:
        return build_with_judge(some, with_tools, config, Letters())

    assert_rows_stand_alone(by_letters, samples, context, CONFIG)


def described(samples: list[Sample]) -> list[Sample]:
    """The samples with the truth of their scenes, which the fixture has drawn."""
    scenes = [sample_scene(WorldConfig(), "preference", number) for number in range(len(samples))]
    return [
        sample.model_copy(update={"truth": scene.to_truth(), "prompt": DESCRIBE})
        for sample, scene in zip(samples, scenes, strict=True)
    ]


def test_the_oracle_grades_what_was_said(samples: list[Sample], context: RunContext, fluent_dir: Path) -> None:
    """Of what the model says about two pictures, some is truer than other, and the oracle says so."""
    fluent = make_context(context.folder, context.scratch, load_vlm(fluent_dir))
    results = build_results(
        build_ranked,
        described(samples),
        fluent,
        CONFIG,
        temperature=1.6,
        max_new_tokens=30,
        answers=8,
        pairs="best-worst",
    )
    pairs = [pair for one in results.values() for pair in one.pairs]
    assert pairs and not any(one.tallies["unscored_answers"] for one in results.values())
    oracle = CONFIG.judge.open(fluent)
    for pair in pairs:
        assert pair.provenance["judge"] == oracle.identity
        sample = next(sample for sample in described(samples) if pair.id.startswith(sample.id))
        inputs = [
            JudgeInput(make_prefix(sample, context.folder), text, sample.reference, sample.truth)
            for text in (pair.chosen, pair.rejected)
        ]
        better, worse = (verdict.score for verdict in oracle.score(inputs))
        assert (better, worse) == (pair.provenance["chosen_score"], pair.provenance["rejected_score"])
        assert better is not None and worse is not None and better > worse


def test_without_a_truth_nothing_is_scored(samples: list[Sample], context: RunContext) -> None:
    results = build_results(build_ranked, samples[:2], context, CONFIG)
    assert {one.dropped for one in results.values()} == {"fewer than two answers were scored"}
    assert all(one.tallies["unscored_answers"] == one.tallies["judged_answers"] > 1 for one in results.values())


def test_the_stage_goes_on_where_it_was(
    fluent_dir: Path, samples_dir: Path, samples: list[Sample], tmp_path: Path
) -> None:
    shutil.copytree(samples_dir, tmp_path / "samples")
    write_samples(tmp_path / "samples", described(samples))
    config = CONFIG.model_copy(update={"temperature": 1.6, "max_new_tokens": 24})
    manifest = assert_goes_on(RANKED, config, fluent_dir, tmp_path / "samples", tmp_path)
    pairs = list(read_pairs(tmp_path / "whole"))
    assert manifest.counts == {"samples": 6, "pairs": len(pairs)} and len(pairs) > 6
    numbers = numbers_of(manifest)
    assert numbers["judged_answers"] <= 24 and numbers["unscored_answers"] == 0
    assert numbers["generated_tokens"] > 24


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("answers=1", "answers = 1"),
        ("margin=-1", "margin = -1"),
        ("pairs=worst", "pairs = 'worst'"),
        ("judge.name=psychic", "judge"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_config(RankedConfig, None, [override] if "judge" in override else ["judge.name=oracle", override])
    with pytest.raises(InputError, match="'judge"):
        load_config(RankedConfig, None, [])
