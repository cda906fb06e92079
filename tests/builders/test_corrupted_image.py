"""Weakened pairs: prompt and image of each side, and the three papers as settings."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from sightline.builders.build import BuildPlan, build_dataset
from sightline.builders.builder import BuildResult, sample_rng
from sightline.builders.corrupted_image import WEAKENED, WeakenedConfig, build_weakened, with_prompt
from sightline.builders.image_corruptions import corrupt_image
from sightline.builders.sampled_answers import PICTURES, answer_seeds, rejected_seed
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import write_samples
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling, make_prefix
from sightline.models.sampler import generate
from sightline.models.vlm import VLM
from sightline.records import Pair, Sample
from tests.builders.builders import assert_goes_on, assert_rows_stand_alone, build_results, make_context, numbers_of
from tests.builders.conftest import ASK, DESCRIBE, LEARNED, QUESTIONS

BAD = "Tell of things that are not there."
SEVA = WeakenedConfig(
    chosen="own", image=("noise-500",), max_new_tokens=8, batch_size=5, wave=4, unfinished=True, temperature=1.0
)


@pytest.fixture
def context(samples_dir: Path, vlm: VLM, tmp_path: Path) -> RunContext:
    return make_context(samples_dir, tmp_path, vlm)


def build(samples: list[Sample], context: RunContext, **changes: object) -> list[BuildResult]:
    return list(build_results(build_weakened, samples, context, SEVA, **changes).values())


def pairs_of(samples: list[Sample], context: RunContext, **changes: object) -> list[Pair]:
    results = build(samples, context, **changes)
    assert [len(one.pairs) for one in results] == [1] * len(samples)
    return [one.pairs[0] for one in results]


def answer(context: RunContext, prefix: Prefix, seed: int, temperature: float = 1.0) -> str:
    (generation,) = generate(context.vlm, [GenerateRequest(prefix, seed=seed)], Sampling(8, temperature), batch_size=1)
    return generation.text.strip()


# --- the sides --------------------------------------------------------------------------------------------------------


def test_seva_clean_against_weakened_picture(samples: list[Sample], context: RunContext) -> None:
    for sample, pair in zip(samples, pairs_of(samples, context), strict=True):
        clean = make_prefix(sample, context.folder)
        noised_image = corrupt_image(clean.images[0], "noise-500", context, sample_rng(0, sample, PICTURES))
        noised = Prefix((noised_image,), sample.prompt)
        assert pair.chosen == answer(context, clean, answer_seeds(sample, 0, 1)[0])
        assert pair.rejected == answer(context, noised, rejected_seed(sample, 0))
        assert (pair.prompt, pair.images, pair.cluster) == (sample.prompt, sample.images, sample.cluster)
        assert (
            pair.provenance.items()
            >= {
                "chosen": "own",
                "image": "noise-500",
                "bad_prompt": False,
                "good_prompt": False,
                "task": "description",
            }.items()
        )


def test_bpo_the_reference_is_chosen_and_costs_nothing(samples: list[Sample], context: RunContext) -> None:
    own = pairs_of(samples, context)
    given = pairs_of(samples, context, chosen="reference")
    for sample, pair, other in zip(samples, given, own, strict=True):
        assert (pair.chosen, pair.rejected) == (sample.reference, other.rejected)
        assert 0 < pair.provenance["tokens"] <= 8 < other.provenance["tokens"]
    results = build(samples, context, chosen="reference")
    assert [one.tallies["generated_tokens"] for one in results] == [pair.provenance["tokens"] for pair in given]


def test_stic_prompts_on_either_side(samples: list[Sample], context: RunContext) -> None:
    prompts = {"image": ("none",), "good_prompt": "Go step by step.", "bad_prompt": BAD}
    for place in ("instead", "before"):
        for sample, pair in zip(samples, pairs_of(samples, context, **prompts, place=place), strict=True):
            good, bad = (
                Prefix((context.folder / sample.images[0],), text if place == "instead" else f"{text}\n{sample.prompt}")
                for text in ("Go step by step.", BAD)
            )
            assert pair.chosen == answer(context, good, answer_seeds(sample, 0, 1)[0])
            assert pair.rejected == answer(context, bad, rejected_seed(sample, 0))
            assert pair.prompt == sample.prompt  # trained on is what people ask
            assert pair.provenance["bad_prompt"] and pair.provenance["good_prompt"]
            assert pair.provenance["image"] == "none"


def test_either_draws_picture_or_prompt_for_each_sample(samples: list[Sample], context: RunContext) -> None:
    many = [samples[0].model_copy(update={"id": f"s{number:02d}"}) for number in range(40)]
    config = {
        "image": ("jitter", "small"),
        "bad_prompt": BAD,
        "by": "either",
        "chosen": "reference",
        "max_new_tokens": 1,
    }
    ways = Counter((p.provenance["image"], p.provenance["bad_prompt"]) for p in pairs_of(many, context, **config))
    assert set(ways) == {("none", True), ("jitter", False), ("small", False)}
    assert 10 <= ways["none", True] <= 30  # three standard deviations of 3.2
    both = {
        (p.provenance["image"], p.provenance["bad_prompt"]) for p in pairs_of(many, context, **{**config, "by": "both"})
    }
    assert both == {("jitter", True), ("small", True)}


def test_each_side_may_be_greedy(samples: list[Sample], context: RunContext) -> None:
    for sample, pair in zip(samples, pairs_of(samples, context, chosen_temperature=0.0), strict=True):
        assert pair.chosen == answer(context, make_prefix(sample, context.folder), 0, temperature=0.0)
    drawn = pairs_of(samples, context)
    half = pairs_of(samples, context, chosen_temperature=0.0)
    assert [pair.rejected for pair in half] == [pair.rejected for pair in drawn]
    greedy = pairs_of(samples, context, temperature=0.0)
    other_seed = make_context(context.folder, context.scratch, context.vlm, seed=1)
    greedy_too = pairs_of(samples, other_seed, temperature=0.0, image=("gray",))
    assert greedy_too == pairs_of(samples, context, temperature=0.0, image=("gray",))  # nothing is left to chance
    assert [pair.chosen for pair in greedy] == [pair.chosen for pair in half]


@pytest.mark.parametrize("image", ["blur", "small", "jitter", "crop", "flip", "gray", "noise-900"])
def test_every_view_is_shown_to_the_rejected_side_alone(samples: list[Sample], context: RunContext, image: str) -> None:
    """Greedy on both sides: what differs is the picture."""
    pairs = pairs_of(samples[:3], context, image=(image,), temperature=0.0)
    assert any(pair.chosen != pair.rejected for pair in pairs)
    assert [pair.chosen for pair in pairs] == [
        answer(context, make_prefix(sample, context.folder), 0, temperature=0.0) for sample in samples[:3]
    ]


def test_all_pictures_of_a_sample_are_weakened(samples: list[Sample], context: RunContext) -> None:
    sample = samples[0].model_copy(update={"images": ("images/0.png", "images/1.png")})
    (pair,) = pairs_of([sample], context)
    clean, rng = make_prefix(sample, context.folder), sample_rng(0, sample, PICTURES)
    noised = tuple(corrupt_image(path, "noise-500", context, rng) for path in clean.images)
    assert len(set(noised)) == 2
    assert pair.rejected == answer(context, Prefix(noised, sample.prompt), rejected_seed(sample, 0))
    assert pair.chosen == answer(context, clean, answer_seeds(sample, 0, 1)[0])


def test_places_of_pictures_stay() -> None:
    prefix = Prefix((Path("a.png"), Path("b.png")), "<image>\nIs <image> the same?")
    assert with_prompt(prefix, BAD, "instead").prompt == f"<image>\n<image>\n{BAD}"
    assert with_prompt(prefix, BAD, "before").prompt == f"{BAD}\n<image>\nIs <image> the same?"
    assert with_prompt(prefix, "", "instead") is prefix
    assert with_prompt(Prefix((Path("a.png"),), ASK), BAD, "instead") == Prefix((Path("a.png"),), BAD)


def test_why_there_is_no_pair(samples: list[Sample], context: RunContext, fluent_dir: Path) -> None:
    bare = samples[0].model_copy(update={"images": ()})
    assert [one.dropped for one in build([bare], context)] == ["no picture to weaken"]
    assert build([bare], context)[0].tallies == {"generated_tokens": 0}
    assert pairs_of([bare], context, image=("none",), bad_prompt=BAD)  # a prompt needs none
    long = samples[0].model_copy(update={"prompt": "cup " * 300})
    assert [one.dropped for one in build([long], context)] == ["too long for the model"]
    assert [one.dropped for one in build([long], context, chosen="reference")] == ["too long for the model"]
    assert [one.dropped for one in build([samples[0]], context, bad_prompt="cup " * 300)] == ["too long for the model"]
    fluent = make_context(context.folder, context.scratch, load_vlm(fluent_dir))
    (cut,) = build([samples[0]], fluent, temperature=0.0, max_new_tokens=6, unfinished=False)
    assert cut.dropped == "max_new_tokens cut the chosen answer off" and cut.tallies == {"generated_tokens": 6}
    (kept,) = build([samples[0]], fluent, temperature=0.0, max_new_tokens=60, unfinished=False)
    assert kept.pairs[0].chosen == LEARNED[0][2] and kept.pairs[0].provenance["chosen_finished"]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image": ("crop", "blur"), "bad_prompt": BAD, "by": "either"},
        {"image": ("none",), "bad_prompt": BAD, "good_prompt": QUESTIONS[2][0], "chosen_temperature": 0.0},
    ],
    ids=["seva", "either", "prompts"],
)
def test_a_row_stands_alone(samples: list[Sample], context: RunContext, changes: dict[str, object]) -> None:
    assert_rows_stand_alone(build_weakened, samples, context, SEVA.model_copy(update=changes))


def test_the_stage_goes_on_where_it_was(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(samples_dir, tmp_path / "samples")
    manifest = assert_goes_on(WEAKENED, SEVA, model_dir, tmp_path / "samples", tmp_path)
    pairs = list(read_pairs(tmp_path / "whole"))
    assert manifest.counts == {"samples": 6, "pairs": len(pairs)}
    assert numbers_of(manifest)["generated_tokens"] >= sum(pair.provenance["tokens"] for pair in pairs) > 0
    assert not (tmp_path / "whole/work/views").exists()  # the pairs have the true pictures
    for pair in pairs:
        assert (tmp_path / "whole" / pair.images[0]).read_bytes() == (samples_dir / pair.images[0]).read_bytes()


def test_equal_answers_are_dropped_by_the_stage(fluent_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    """The model says nothing to the question about cows and never minds the picture there."""
    shutil.copytree(samples_dir, tmp_path / "samples")
    rows = [
        Sample(id="cows", images=("images/0.png",), prompt=LEARNED[3][1]),
        Sample(id="same", images=("images/0.png",), prompt=DESCRIBE),
        Sample(id="told", images=("images/0.png",), prompt=DESCRIBE, reference="A kettle."),
    ]
    write_samples(tmp_path / "samples", rows)
    config = SEVA.model_copy(update={"image": ("noise-0",), "temperature": 0.0, "max_new_tokens": 60})
    with pytest.raises(InputError, match=r"'rejected equals chosen': 2.*corrupt the image more"):
        build_dataset(BuildPlan(WEAKENED, config), fluent_dir, tmp_path / "samples", tmp_path / "out")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["image=noise-2000"], "no image corruption 'noise-2000'.*or none"),
        (["image=[none, blur]"], "lists none beside corruptions"),
        (["image=[]"], r"image = \(\)|image = \[\]"),
        ([], "nothing is corrupted"),
        (["image=blur", "by=either"], "both for by: either"),
        (["bad_prompt=Lie.", "by=either"], "both for by: either"),
        (["image=blur", "good_prompt=Look.", "chosen=reference"], "good_prompt needs chosen: own"),
        (["image=blur", "chosen=mine"], "chosen = 'mine'"),
        (["image=blur", "chosen_temperature=-1"], "chosen_temperature = -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_config(WeakenedConfig, None, ["chosen=own", *overrides])


def test_one_view_needs_no_list() -> None:
    assert load_config(WeakenedConfig, None, ["chosen=own", "image=blur"]).image == ("blur",)
    assert load_config(WeakenedConfig, None, ["chosen=own", "image=[blur, noise-5]"]).image == ("blur", "noise-5")
