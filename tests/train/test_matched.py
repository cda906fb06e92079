"""Supervised tuning of a text-only chat model on explained pairs, and its answers under four prompts."""

from pathlib import Path

import pytest

from sightline.config import load_config
from sightline.data.samples import read_samples
from sightline.evals.directory import read_result
from sightline.evals.run import EvalConfig, Files, evaluate
from sightline.recipes.matching.entities.pairs import read_match
from sightline.recipes.matching.entities.reading import ReadConfig, read_entities
from sightline.recipes.matching.explaining import ExplainConfig, explain
from sightline.records import read_manifest
from sightline.train.config import TrainConfig
from sightline.train.run import train
from tests.data.entities.rows import write_one_file
from tests.models.families.text import save_llama

STEPS = ("loss.name=sft", "optim.lr=0.01", "lora.rank=8", "batch_size=6", "max_steps=16", "device=cpu")


def test_from_a_table_to_a_tuned_model_and_its_figures(tmp_path: Path) -> None:
    """What is proved is the way; sixteen steps of a random model teach it to speak otherwise, and no more."""
    model = save_llama(tmp_path / "model")
    table = write_one_file(tmp_path / "lamps.csv", copies=2)
    for split in ("train", "test"):
        read_config = load_config(ReadConfig, None, [f"split={split}", "noun=lamp", "fields=[title]"])
        read_entities(table, read_config, 0, tmp_path / split)
    how = load_config(ExplainConfig, None, ["format=structured", "annotator=null"])
    manifest = explain(tmp_path / "train", how, 0, tmp_path / "explained")
    tuned = train(
        model, None, tmp_path / "tuned", load_config(TrainConfig, None, list(STEPS)), 0, tmp_path / "explained"
    )
    assert read_manifest(tuned).counts["pairs"] == manifest.counts["samples"] and not read_manifest(tuned).dropped
    eval_config = EvalConfig(benchmarks=("matching",), max_new_tokens=3, resamples=100)
    files = Files(data=tmp_path / "test")
    evaluate(model, tmp_path / "before", eval_config, files=files)
    evaluate(model, tmp_path / "after", eval_config, adapter=tuned / "adapter", files=files)
    before, after = (read_result(tmp_path / name, "matching") for name in ("before", "after"))
    assert len(after.samples) == 4 * sum(1 for _ in read_samples(tmp_path / "test"))
    assert [answer.text for answer in before.answers] != [answer.text for answer in after.answers]
    for found in (before, after):
        unparsed = sum(read_match(answer.text) is None for answer in found.answers) / len(found.answers)
        assert found.estimates["unparsed"].value == pytest.approx(unparsed)
