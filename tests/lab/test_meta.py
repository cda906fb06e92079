"""lab-meta: two opposite wishes a scene, scored by hand; who always answers alike follows half of them and no two."""

from pathlib import Path

import pytest

from sightline.data.turns import tiers
from sightline.evals.benchmark import BenchmarkOptions, CombinesScores
from sightline.evals.registry import get_benchmark
from sightline.lab.meta_benchmark import UNSEEN, LabMeta
from sightline.lab.wishes import describe_by_rules, parse_rules
from sightline.lab.words import WorldConfig
from sightline.lab.world import Scene, scene_rng
from sightline.records import Answer, Sample, Score


@pytest.fixture(scope="module")
def meta(tmp_path_factory: pytest.TempPathFactory) -> LabMeta:
    benchmark = get_benchmark("lab-meta", BenchmarkOptions(tmp_path_factory.mktemp("meta"), limit=30))
    assert isinstance(benchmark, LabMeta) and isinstance(benchmark, CombinesScores)
    return benchmark


def answer(sample: Sample, text: str) -> Answer:
    return Answer(sample_id=sample.id, cluster=sample.cluster, text=text)


def means(meta: LabMeta, scores: list[Score]) -> tuple[float, float]:
    """(follows, both) over all scores."""
    rows = list(meta.combine(scores))
    follows = [row.values["follows"] or 0.0 for row in rows]
    both = [row.values["both"] or 0.0 for row in rows if "pair" in row.groups]
    assert len(both) * 2 == len(rows)
    return sum(follows) / len(follows), sum(both) / len(both)


def test_each_scene_is_asked_under_both_wishes_and_the_provider_wins(meta: LabMeta) -> None:
    rows = list(meta.samples())
    seen = set[str]()
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        mine, other = first.truth["in_force"], second.truth["in_force"]
        assert first.cluster == second.cluster and mine != other
        (kind,) = first.truth["parts"]
        seen.add(kind)
        wishes = {"priority": (mine, other), "user": ("", mine), "agreeing": (mine, mine)}[kind]
        assert first.history == tiers(*wishes)
    assert seen == {"priority", "user", "agreeing"}


def test_who_follows_is_right_and_who_always_answers_alike_is_right_half_the_time(meta: LabMeta) -> None:
    obedient, stubborn = [], []
    for sample in meta.samples():
        scene = Scene.from_truth(sample.truth)
        rng = scene_rng(WorldConfig(), "train", 0)
        text = describe_by_rules(rng, scene, parse_rules(sample.truth["in_force"]))
        assert text is not None
        obedient.append(meta.score(sample, answer(sample, text)))
        alike = describe_by_rules(scene_rng(WorldConfig(), "train", 1), scene, [])
        assert alike is not None
        stubborn.append(meta.score(sample, answer(sample, alike)))
    assert means(meta, obedient) == (1.0, 1.0)
    follows, both = means(meta, stubborn)
    assert both == 0.0 and 0.3 < follows <= 0.5
    assert all(score.values["hallucinates"] == 0.0 for score in obedient)


def test_faithfulness_is_measured_besides(meta: LabMeta) -> None:
    sample = next(meta.samples())
    scene = Scene.from_truth(sample.truth)
    absent = "igloo" if "igloo" not in scene.kinds else "car"
    score = meta.score(sample, answer(sample, f"A {absent}."))
    assert score.values["hallucinates"] == 1.0 and score.details["in_force"] == sample.truth["in_force"]


def test_unseen_wishes_come_a_third_each(tmp_path: Path) -> None:
    rows = list(get_benchmark("lab-meta-unseen", BenchmarkOptions(tmp_path, limit=30)).samples())
    counts = {part: sum(part in row.truth["parts"] for row in rows) for part in UNSEEN}
    assert counts["wording"] <= 20 and counts["rule"] == 20 and 0 < counts["object"] <= 20
