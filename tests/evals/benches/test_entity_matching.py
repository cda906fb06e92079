"""The benchmark `matching`: metrics by hand for each prompt, their mean, best and spread, and unparsed answers."""

import statistics
from collections.abc import Mapping
from pathlib import Path

import pytest

from sightline.config import load_config
from sightline.errors import InputError
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.registry import get_benchmark
from sightline.evals.scoring import estimate_scores, score_answer
from sightline.recipes.matching.entities.pairs import PROMPTS, EntityPair
from sightline.recipes.matching.entities.reading import ReadConfig, read_entities
from sightline.recipes.matching.entities.rule import RULE, likeness
from sightline.records import Answer, Estimate, Sample
from sightline.records.store import read_json, write_json
from tests.data.entities.rows import write_deepmatcher, write_one_file

#: What is said to the six pairs, of which the third and the first match, under each prompt.
ANSWERS: Mapping[str, Mapping[str, str]] = {
    "complex-free": {"0": "Yes", "1": "Yes", "2": "Maybe", "3": "No", "4": "Hm", "5": "No"},
    "complex-force": dict.fromkeys("012345", "Yes"),
    "simple-free": {"0": "Yes", "1": "No", "2": "Yes", "3": "No", "4": "No", "5": "No"},
    "simple-force": dict.fromkeys("012345", "No"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    config = load_config(ReadConfig, None, ["split=test", "noun=lamp"])
    read_entities(write_deepmatcher(tmp_path / "dm", "test"), config, 0, tmp_path / "data")
    return tmp_path / "data"


def estimates(data: Path) -> dict[str, Estimate]:
    benchmark = get_benchmark("matching", BenchmarkOptions(data))
    scores = []
    for sample in benchmark.samples():
        pair, _, prompt = sample.id.partition("/")
        answer = Answer(sample_id=sample.id, cluster=sample.cluster, text=ANSWERS[prompt][pair[-1]])
        scores.append(score_answer(benchmark, sample, answer))
    return estimate_scores(benchmark, scores, resamples=200)


def test_figures_by_hand(data: Path) -> None:
    """complex-free: 1 true positive, 1 false positive, 1 false negative (unparsed), 1 more unparsed on no match."""
    found = estimates(data)
    value = {name: one.value for name, one in found.items()}
    assert value["complex-free_f1"] == pytest.approx(2 / 4)
    assert value["complex-free_precision"] == value["complex-free_recall"] == pytest.approx(1 / 2)
    assert value["complex-free_f1_strict"] == pytest.approx(2 / 5), "an unparsed no-match is wrong there"
    assert value["complex-free_unparsed"] == pytest.approx(2 / 6)
    assert value["complex-force_f1"] == pytest.approx(4 / 8) and value["complex-force_recall"] == 1.0
    assert (value["simple-free_f1"], value["simple-force_f1"]) == (1.0, 0.0)
    each = [1 / 2, 1 / 2, 1.0, 0.0]
    assert value["f1"] == pytest.approx(sum(each) / 4) and value["f1_best"] == 1.0
    assert value["f1_spread"] == pytest.approx(statistics.stdev(each))
    assert value["f1_strict"] == pytest.approx((2 / 5 + 1 / 2 + 1 + 0) / 4)
    assert value["unparsed"] == pytest.approx(2 / 24)
    assert value["accuracy"] == pytest.approx((3 + 2 + 6 + 4) / 24)
    assert value["precision"] is None, "who never says yes has no precision"
    assert found["f1"].n == 24
    assert found["f1"].ci95 is None, "one resample in eleven of six pairs draws no match, and has no F1"
    assert found["accuracy"].ci95 is not None


def test_yes_to_all_stands_beside_the_model(data: Path) -> None:
    """Two of six match: 2 * 2 / (2 + 6). It has no direction, so that no model can be better or worse in it."""
    found = estimates(data)
    assert found["f1_yes_to_all"].value == pytest.approx(4 / 8) and found["f1_yes_to_all"].n == 24
    metrics = get_benchmark("matching", BenchmarkOptions(data)).metrics
    assert metrics["f1_yes_to_all"].higher_is_better is None
    assert "f1_string_rule" not in metrics, "no rule was learned for these samples"


def test_a_rule_learned_on_other_rows_stands_beside_the_model(tmp_path: Path) -> None:
    """Learned on one file and asked of another: its threshold lies in the gap below the less alike of two matches."""
    table = write_one_file(tmp_path / "lamps.csv", copies=4)
    read_entities(table, load_config(ReadConfig, None, ["split=train"]), 0, tmp_path / "train")
    config = load_config(ReadConfig, None, ["split=test", f"rule_from={tmp_path / 'train'}"])
    manifest = read_entities(table, config, 0, tmp_path / "test")
    rule = read_json(tmp_path / "test" / RULE)
    assert manifest.numbers["rule_threshold"] == rule["threshold"] and manifest.inputs["rule_from"]
    benchmark = get_benchmark("matching", BenchmarkOptions(tmp_path / "test"))
    samples = list(benchmark.samples())
    predictions = {sample.id: likeness(pair_of_truth(sample)) >= rule["threshold"] for sample in samples}
    right = sum(predictions[s.id] and bool(s.truth["match"]) for s in samples)
    expected = 2 * right / (sum(predictions.values()) + sum(bool(s.truth["match"]) for s in samples))
    scores = [score_answer(benchmark, s, Answer(sample_id=s.id, cluster=s.cluster, text="No")) for s in samples]
    found = estimate_scores(benchmark, scores, resamples=200)
    assert found["f1_string_rule"].value == pytest.approx(expected) and expected > 0
    assert found["recall"].value == 0.0, "whatever the model says"
    metric = benchmark.metrics["f1_string_rule"]
    assert str(rule["rows"]) in metric.label and metric.higher_is_better is None
    write_json(tmp_path / "test" / RULE, {"threshold": "high"})
    with pytest.raises(InputError, match="holds no string rule"):
        _ = get_benchmark("matching", BenchmarkOptions(tmp_path / "test")).metrics


def pair_of_truth(sample: Sample) -> EntityPair:
    return EntityPair(**{k: v for k, v in sample.truth.items() if k in EntityPair.model_fields})


def test_limit_counts_pairs_and_a_pair_is_one_cluster(data: Path) -> None:
    samples = list(get_benchmark("matching", BenchmarkOptions(data, limit=2)).samples())
    assert [sample.id.partition("/")[2] for sample in samples] == [*PROMPTS, *PROMPTS]
    assert len({sample.cluster for sample in samples}) == 2
    assert len({sample.prompt for sample in samples}) == 8


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no samples\.jsonl; make it with `sightline match read`"):
        get_benchmark("matching", BenchmarkOptions(tmp_path))
