"""Labels that depend on wishes: the four kinds by hand, flipped twins, given answers, and independent rows."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sightline.builders.build import BuildPlan, build_dataset
from sightline.builders.conditioned import (
    CONDITIONED,
    NO_WISH,
    STATED,
    ConditionedConfig,
    build_conditioned,
    meta_prompts,
)
from sightline.builders.rewriting import ALTERED
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import read_samples, write_samples
from sightline.data.turns import tiers
from sightline.errors import InputError
from sightline.lab.samples import ScenesConfig, lab_samples
from sightline.lab.wishes import follows, parse_rules
from sightline.models.context import RunContext
from sightline.models.requests import judge_input
from sightline.records import Pair, Sample
from sightline.writers.prompts import render_prompt
from sightline.writers.writer import WriterTask
from tests.builders.builders import assert_goes_on, build_results

LAB: dict[str, Any] = {"preferences": {"name": "lab"}, "writer": {"name": "oracle"}}
LISTED: dict[str, Any] = {
    "preferences": {
        "name": "listed",
        "contrasts": [{"name": "care", "wanted": ["Be careful."], "against": ["Be bold."]}],
    },
    "writer": None,
    "kinds": {"consensus": 0},
}


@pytest.fixture(scope="module")
def lab_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    config = ScenesConfig(described=1.0, captioned=0.0)
    write_samples(folder, lab_samples(config, "preference", 24, folder))
    return folder


def pairs_of(config: dict[str, Any], folder: Path, samples: list[Sample], seed: int = 0) -> list[Pair]:
    context = RunContext(folder, folder, seed)
    results = build_conditioned(samples, context, ConditionedConfig.model_validate(config))
    return [pair for one in results for pair in one.pairs]


def test_the_tiers_of_each_kind() -> None:
    assert meta_prompts("priority", "A", "B", "N") == [tiers("A", "B")]
    assert meta_prompts("helpful", "A", "B", "N") == [tiers("N", "A")]
    assert meta_prompts("consensus", "A", "B", "N") == [tiers("A", "A")]
    assert meta_prompts("diverse", "A", "B") == [tiers("", "A"), tiers("", "B")]


@pytest.mark.parametrize("kind", ["priority", "helpful", "consensus", "diverse"])
def test_the_chosen_answer_follows_the_wish_in_force(kind: str, lab_dir: Path) -> None:
    weights = {name: float(name == kind) for name in ("priority", "helpful", "consensus", "diverse")}
    results = pairs_of({**LAB, "kinds": weights}, lab_dir, list(read_samples(lab_dir)))
    assert len(results) > 15
    for pair in results:
        (rule,) = parse_rules(pair.provenance["in_force"])
        assert follows(rule, pair.chosen) and pair.provenance["kind"] == kind
        stated = [turn.text for turn in pair.history]
        if kind == "consensus":
            assert stated == [pair.provenance["in_force"]] * 2
        else:
            assert not follows(rule, pair.rejected)
            assert stated[0 if kind == "priority" else -1] == pair.provenance["in_force"]


def test_a_diverse_opinion_is_a_pair_and_its_flipped_twin(lab_dir: Path) -> None:
    config = {**LAB, "kinds": {"priority": 0, "helpful": 0, "consensus": 0}}
    pairs = pairs_of(config, lab_dir, list(read_samples(lab_dir)))
    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        assert (one.chosen, one.rejected) == (other.rejected, other.chosen) and one.history != other.history
        assert one.provenance["flipped"] is not other.provenance["flipped"]


def test_given_answers_keep_or_flip_their_label(samples_dir: Path, tmp_path: Path) -> None:
    """The published label holds where care is in force, and is turned where boldness is."""
    given = [
        sample.model_copy(update={"reference": "I cannot say.", "truth": {"rejected": "A cup!"}})
        for sample in read_samples(samples_dir)
    ]
    pairs = [pair for seed in range(4) for pair in pairs_of(LISTED, samples_dir, given, seed)]
    assert {pair.provenance["flipped"] for pair in pairs} == {True, False}
    for pair in pairs:
        careful = pair.provenance["in_force"] == "Be careful."
        assert (pair.chosen, pair.rejected) == (("I cannot say.", "A cup!") if careful else ("A cup!", "I cannot say."))
        assert pair.provenance["flipped"] is not careful


def test_a_row_stands_alone_and_the_seed_decides(lab_dir: Path) -> None:
    samples, config = list(read_samples(lab_dir)), ConditionedConfig.model_validate(LAB)
    context = RunContext(lab_dir, lab_dir, 0)
    together = build_results(build_conditioned, samples, context, config)
    assert together == build_results(build_conditioned, samples[::-1], context, config, wave=5)
    assert together != build_results(build_conditioned, samples, RunContext(lab_dir, lab_dir, 1), config)


def test_stopped_it_goes_on_and_pairs_are_read_back(lab_dir: Path, model_dir: Path, tmp_path: Path) -> None:
    config = load_config(ConditionedConfig, Path("sightline/lab/configs/conditioned.yaml"), [])
    manifest = assert_goes_on(CONDITIONED, config, model_dir, lab_dir, tmp_path)
    pairs = list(read_pairs(tmp_path / "whole"))
    assert manifest.counts["pairs"] == len(pairs) and all(pair.history for pair in pairs)
    flip = ConditionedConfig.model_validate(LISTED)
    with pytest.raises(InputError, match=STATED):
        build_dataset(BuildPlan(CONDITIONED, flip), None, tmp_path / "whole", tmp_path / "again")


def test_a_directory_of_pairs_is_taken_with_both_answers(lab_dir: Path, tmp_path: Path) -> None:
    altered = load_config(ALTERED.config, None, ["writer.name=oracle"])
    first = build_dataset(BuildPlan(ALTERED, altered), None, lab_dir, tmp_path / "altered")
    flip = ConditionedConfig.model_validate({**LISTED, "kinds": {"consensus": 0, "diverse": 0}})
    again = build_dataset(BuildPlan(CONDITIONED, flip), None, tmp_path / "altered", tmp_path / "again")
    assert again.counts["pairs"] == first.counts["pairs"] > 10
    given = {pair.id: (pair.chosen, pair.rejected) for pair in read_pairs(tmp_path / "altered")}
    for pair in read_pairs(tmp_path / "again"):
        two = given[pair.id.removesuffix("/conditioned")]
        assert (pair.chosen, pair.rejected) == (two[::-1] if pair.provenance["flipped"] else two)


def test_a_sample_without_a_fitting_wish_is_dropped(samples_dir: Path) -> None:
    context = RunContext(samples_dir, samples_dir, 0)
    results = list(build_conditioned(read_samples(samples_dir), context, ConditionedConfig.model_validate(LAB)))
    assert {one.dropped for one in results} == {NO_WISH}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": {}}, "consensus needs a writer"),
        ({"kinds": dict.fromkeys(("priority", "helpful", "consensus", "diverse"), 0)}, "all kinds have weight 0"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ConditionedConfig.model_validate({**LISTED, **changes})


def test_a_writer_is_told_the_wish(samples_dir: Path) -> None:
    sample = next(iter(read_samples(samples_dir)))
    draft = WriterTask("follow", judge_input(sample, samples_dir, "A {wish} cup."), beside="Be brief {answer}.")
    assert render_prompt(draft).endswith("Answer: A {wish} cup.\nWish: Be brief {answer}.")


def test_pairs_that_cannot_be_told_are_an_error(tmp_path: Path, samples_dir: Path) -> None:
    with pytest.raises(InputError, match="no pair is left"):
        build_dataset(
            BuildPlan(CONDITIONED, ConditionedConfig.model_validate(LAB)), None, samples_dir, tmp_path / "out"
        )
