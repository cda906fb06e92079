"""Corrupted, altered and corrected pairs: the lab's oracle writes, the lab's base model answers."""

from pathlib import Path

import pytest

from sightline.builders.build import BuildPlan, build_dataset
from sightline.builders.dataset_ops import merge_datasets
from sightline.builders.registry import get_builder
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import Shard, read_samples
from sightline.errors import InputError
from sightline.lab import BASE
from sightline.lab.oracle import mistakes
from sightline.lab.parser import judge, parse_claims
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.lab.world import Scene
from sightline.records import Manifest, Pair, Sample

ORACLE = ("writer.name=oracle",)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(ScenesConfig(described=1.0), "validation", 24, tmp_path_factory.mktemp("scenes") / "samples")


@pytest.fixture(scope="module")
def truths(scenes: Path) -> dict[str, Sample]:
    return {sample.id: sample for sample in read_samples(scenes)}


def build(name: str, scenes: Path, out: Path, *settings: str, model: Path | None = None) -> tuple[Manifest, list[Pair]]:
    builder = get_builder(name)
    manifest = build_dataset(BuildPlan(builder, load_config(builder.config, None, settings)), model, scenes, out)
    return manifest, list(read_pairs(out))


def wrong(text: str, sample: Sample) -> int:
    return mistakes(judge(parse_claims(text), Scene.from_truth(sample.truth)))


def cut(text: str, spans: tuple[tuple[int, int], ...]) -> str:
    return "|".join(text[start:end] for start, end in spans)


@pytest.mark.parametrize("name", ["corrupted", "altered"])
def test_spoiled_references_are_worse_and_their_spans_are_the_change(
    name: str, scenes: Path, truths: dict[str, Sample], tmp_path: Path
) -> None:
    manifest, pairs = build(name, scenes, tmp_path / "out", *ORACLE)
    assert manifest.counts["samples"] == 24 and len(pairs) > 20 and "model" not in manifest.inputs
    for pair in pairs:
        sample = truths[pair.id.split("/")[0]]
        assert pair.chosen == sample.reference and pair.images == sample.images
        assert wrong(pair.rejected, sample) > wrong(pair.chosen, sample)
        assert cut(pair.chosen, pair.chosen_spans) != cut(pair.rejected, pair.rejected_spans) != ""
        assert pair.provenance["writer"] and pair.builder == name


def test_twins_differ_from_each_other(scenes: Path, tmp_path: Path) -> None:
    manifest, pairs = build("altered", scenes, tmp_path / "out", *ORACLE, "twins=4")
    assert len({(pair.cluster, pair.rejected) for pair in pairs}) == len(pairs) > 60
    assert manifest.numbers["written_texts"] == 4 * 24
    assert all(pair.id.split("/")[1].startswith("altered-") for pair in pairs)


def test_corrected_answers_are_right_and_right_answers_make_no_pair(
    scenes: Path, truths: dict[str, Sample], tmp_path: Path
) -> None:
    settings = (*ORACLE, "temperature=1", "max_new_tokens=80")
    manifest, pairs = build("corrected", scenes, tmp_path / "out", *settings, model=BASE)
    assert len(pairs) > 5
    for pair in pairs:
        sample = truths[pair.id.split("/")[0]]
        assert wrong(pair.chosen, sample) == 0 < wrong(pair.rejected, sample)
    assert manifest.dropped.get("the writer changed nothing", 0) > 0
    assert manifest.counts["pairs"] + sum(manifest.dropped.values()) == 24
    assert manifest.numbers["generated_tokens"] > 24 * 10


def test_shards_merged_are_the_whole(scenes: Path, tmp_path: Path) -> None:
    builder = get_builder("altered")
    config = load_config(builder.config, None, ORACLE)
    _, whole = build("altered", scenes, tmp_path / "whole", *ORACLE)
    parts = []
    for index in range(3):
        parts.append(tmp_path / f"part-{index}")
        manifest = build_dataset(BuildPlan(builder, config, shard=Shard(index, 3)), None, scenes, parts[-1])
        assert manifest.counts["samples"] == 8
    merge_datasets(parts, tmp_path / "merged")
    assert list(read_pairs(tmp_path / "merged")) == whole
    with pytest.raises(InputError, match="another run"):  # a part is not another part
        build_dataset(BuildPlan(builder, config, shard=Shard(1, 3)), None, scenes, parts[0])
    with pytest.raises(InputError, match="occurs twice"):
        merge_datasets([parts[0], parts[0]], tmp_path / "twice")


@pytest.mark.parametrize("text", ["", "1", "2/2", "-1/2", "a/b", "1/0"])
def test_shards_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="INDEX/COUNT"):
        Shard.parse(text)
    assert Shard.parse("1/4") == Shard(1, 4)


def test_a_builder_without_a_model_needs_none_and_one_with_says_so(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs corrected needs a model"):
        build("corrected", scenes, tmp_path / "out", *ORACLE)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("writer.name=oracel", "writer"),
        ("writer.world=lap", "lab"),
        ("writter.name=oracle", "did you mean 'writer'"),
    ],
)
def test_mistakes_in_the_config_are_named(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_config(get_builder("corrupted").config, None, (*ORACLE, setting))
