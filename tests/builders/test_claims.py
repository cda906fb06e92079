"""Divide and conquer: fewer denied claims win, and of those the pairs of most equal length."""

from pathlib import Path

import pytest

from sightline.builders.build import BuildPlan, build_dataset
from sightline.builders.claims import CLAIMS, ClaimsConfig
from sightline.builders.ranked import GradedAnswer, RankedConfig, select_pairs
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.judges.judge import Verdict
from sightline.lab import BASE, CONFIGS
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.requests import Generation


def graded(words: int, score: float) -> GradedAnswer:
    return GradedAnswer(Generation("word " * words, words, True), score, Verdict(score))


def test_the_most_equal_lengths_come_first_and_no_more_than_asked_for() -> None:
    answers = [graded(10, 0.0), graded(4, -3.0), graded(9, -1.0), graded(10, -2.0)]
    config = RankedConfig.model_validate({"judge": {"name": "oracle"}, "pairs": "length-balanced", "most": 2})
    kept, _ = select_pairs(answers, config)
    lengths = [[len(each.answer.text.split()) for each in both] for both in kept]
    assert lengths == [[10, 10], [10, 9]]
    assert all(better.score > worse.score for better, worse in kept)


def test_pairs_of_the_lab_differ_in_denied_claims(tmp_path: Path) -> None:
    scenes = write_scenes(ScenesConfig(described=1.0), "validation", 12, tmp_path / "scenes")
    config = load_config(ClaimsConfig, CONFIGS / "claims.yaml", ("max_new_tokens=60", "most=1"))
    manifest = build_dataset(BuildPlan(CLAIMS, config), BASE, scenes, tmp_path / "out")
    pairs = list(read_pairs(tmp_path / "out"))
    assert 1 <= len(pairs) <= 12 and len({pair.cluster for pair in pairs}) == len(pairs)
    for pair in pairs:
        assert pair.provenance["chosen_score"] > pair.provenance["rejected_score"]
        assert pair.provenance["rejected_aspects"]["claims"] >= -pair.provenance["rejected_score"] > 0
        assert pair.builder == "claims" and pair.id.endswith("/claims-000")
    assert manifest.numbers["judged_answers"] == pytest.approx(4 * 12, abs=12)
