"""Distorted pairs: the reference's tokens under a noised image, and their text."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sightline.builders.builder import BuildResult, sample_rng
from sightline.builders.distorted import DISTORTED, DistortedConfig, _make_result, build_distorted
from sightline.builders.image_corruptions import corrupt_image
from sightline.builders.sampled_answers import PICTURES, rejected_seed
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.encoding import encode_answer, encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.requests import make_prefix
from sightline.models.teacher_forcing import ForcingRequest, forced_tokens
from sightline.models.vlm import VLM
from sightline.records import Sample
from tests.builders.builders import assert_goes_on, assert_rows_stand_alone, build_results, make_context, numbers_of
from tests.builders.conftest import LEARNED, make_samples

CONFIG = DistortedConfig(batch_size=4, wave=3)


@pytest.fixture
def context(samples_dir: Path, vlm: VLM, tmp_path: Path) -> RunContext:
    return make_context(samples_dir, tmp_path, vlm)


def build(samples: list[Sample], context: RunContext, **changes: object) -> list[BuildResult]:
    return list(build_results(build_distorted, samples, context, CONFIG, **changes).values())


@pytest.mark.parametrize("rule", ["sample", "argmax"])
def test_the_rejected_answer_is_drawn_under_the_noised_picture(
    samples: list[Sample], context: RunContext, rule: str
) -> None:
    """Token by token given the true ones, as `models.teacher_forcing` does it for one row alone."""
    for sample, result in zip(samples, build(samples, context, rule=rule), strict=True):
        (pair,) = result.pairs
        clean = make_prefix(sample, context.folder)
        noised = corrupt_image(clean.images[0], "noise-500", context, sample_rng(0, sample, PICTURES))
        forcing = ForcingRequest(replace(clean, images=(noised,)), sample.reference or "", rejected_seed(sample, 0))
        heat = 1.0 if rule == "sample" else 0.0
        (forced,) = forced_tokens(context.vlm, [forcing], temperature=heat, batch_size=1)
        assert (pair.id, pair.chosen, pair.rejected) == (
            f"{sample.id}/distorted",
            sample.reference,
            forced.text.strip(),
        )
        assert pair.images == sample.images
        row = encode_answer(context.vlm, encode_prefix(context.vlm, clean), pair.rejected)
        differs = row.ids[row.start :] != forced.ids
        assert pair.provenance == {
            "rule": rule,
            "noise_steps": 500,
            "changed_tokens": forced.changed,
            "retokenized_differently": differs,
            "tokens": len(forced.ids),
            "task": "description",
        }
        assert result.tallies == {
            "forced_tokens": len(forced.ids),
            "share_tokens_changed": forced.changed / len(forced.ids),
            "share_retokenized_differently": differs,
        }


def test_the_rules_the_noise_and_the_temperature_matter(samples: list[Sample], context: RunContext) -> None:
    ways = [
        [result.pairs[0].rejected for result in build(samples, context, **changes)]
        for changes in ({}, {"rule": "argmax"}, {"noise_steps": 0}, {"temperature": 0.3})
    ]
    assert all(one != other for place, one in enumerate(ways) for other in ways[:place])
    cold = [result.pairs[0].rejected for result in build(samples, context, temperature=0.001)]
    assert cold == ways[1]  # near zero, a draw is the likeliest


def test_a_model_that_knows_the_reference_by_heart_says_it_under_a_clean_picture(
    samples_dir: Path, fluent_dir: Path, tmp_path: Path
) -> None:
    """Without noise the likeliest tokens are the reference's own, and the stage would drop such a pair."""
    fluent = make_context(samples_dir, tmp_path, load_vlm(fluent_dir))
    known = make_samples(["images/0.png", "images/1.png"], tuple((prompt, text) for _, prompt, text in LEARNED[:2]))
    for result in build(known, fluent, rule="argmax", noise_steps=0):
        (pair,) = result.pairs
        assert pair.rejected == pair.chosen
        assert result.tallies["share_tokens_changed"] == 0 == result.tallies["share_retokenized_differently"]


def test_why_there_is_no_pair(samples: list[Sample], context: RunContext) -> None:
    bare = samples[0].model_copy(update={"id": "bare", "images": ()})
    long = samples[0].model_copy(update={"id": "long", "reference": "There is a cup. " * 200})
    results = build([bare, samples[1], long], context)
    assert [one.dropped for one in results] == ["no picture to weaken", "", "too long for the model"]
    assert [len(one.pairs) for one in results] == [0, 1, 0]
    assert results[0].tallies == results[2].tallies == {}


def test_what_cannot_be_read_as_tokens_is_dropped(
    samples: list[Sample], context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model at a high temperature may spell `</s>` in letters, which no pair may say."""
    hot = build(samples, context, temperature=50.0)
    assert all(one.pairs for one in hot)  # nobody is that unlucky
    ids = [context.vlm.tokenizer.convert_tokens_to_ids(letter) for letter in "</s>"]
    prefix = make_prefix(samples[0], context.folder)
    (forced,) = forced_tokens(context.vlm, [ForcingRequest(prefix, "No.")], temperature=0.0, batch_size=1)
    text: str = context.vlm.tokenizer.decode(ids)
    assert text == "</s>"
    result = _make_result(samples[0], prefix, replace(forced, text=f"No {text}"), context.vlm, CONFIG)
    assert result.dropped == "the distorted answer cannot be read as tokens" and not result.pairs
    assert result.tallies["forced_tokens"] == len(forced.ids)


@pytest.mark.parametrize("rule", ["sample", "argmax"])
def test_a_row_stands_alone(samples: list[Sample], context: RunContext, rule: str) -> None:
    """With rule argmax the seed still decides the noise."""
    assert_rows_stand_alone(build_distorted, samples, context, CONFIG.model_copy(update={"rule": rule}))


def test_the_stage_goes_on_where_it_was(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(samples_dir, tmp_path / "samples")
    manifest = assert_goes_on(DISTORTED, CONFIG, model_dir, tmp_path / "samples", tmp_path)
    pairs = list(read_pairs(tmp_path / "whole"))
    assert manifest.counts == {"samples": 6, "pairs": 6}
    numbers = numbers_of(manifest)
    assert numbers["forced_tokens"] == sum(pair.provenance["tokens"] for pair in pairs)
    differing = sum(pair.provenance["retokenized_differently"] for pair in pairs)
    assert numbers["share_retokenized_differently"] == pytest.approx(differing / 6)
    changed = [pair.provenance["changed_tokens"] / pair.provenance["tokens"] for pair in pairs]
    assert numbers["share_tokens_changed"] == pytest.approx(sum(changed) / 6)
    assert 0 < numbers["share_tokens_changed"] < 1


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("noise_steps=1001", "noise_steps = 1001"),
        ("temperature=0", "temperature = 0"),
        ("rule=beam", "rule = 'beam'"),
        ("max_new_tokens=5", "unknown key 'max_new_tokens'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_config(DistortedConfig, None, [override])


def test_a_sample_without_reference_is_refused(samples: list[Sample], context: RunContext) -> None:
    with pytest.raises(InputError, match="has no reference"):
        build([samples[0].model_copy(update={"reference": None})], context)
