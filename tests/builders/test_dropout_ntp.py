"""DropoutNTP: the kept beginning, the completion without the image, and the chosen answer."""

import shutil
from pathlib import Path

import pytest

from sightline.builders.builder import BuildResult
from sightline.builders.dropout_ntp import DROPOUT_NTP, DropoutNTPConfig, build_dropout_ntp, keep_beginning
from sightline.builders.sampled_answers import rejected_seed
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate, image_token_count
from sightline.models.vlm import VLM
from sightline.records import Sample, Turn
from tests.builders.builders import assert_goes_on, assert_rows_stand_alone, build_results, make_context, numbers_of
from tests.builders.conftest import DESCRIBE, LEARNED, QUESTIONS, save_scenes

CONFIG = DropoutNTPConfig(max_new_tokens=8, batch_size=4, wave=3, unfinished=True)
BY_HEART = DropoutNTPConfig(temperature=0.01, max_new_tokens=60)


@pytest.fixture
def context(samples_dir: Path, vlm: VLM, tmp_path: Path) -> RunContext:
    return make_context(samples_dir, tmp_path, vlm)


@pytest.fixture(scope="module")
def fluent(fluent_dir: Path, samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return make_context(samples_dir, tmp_path_factory.mktemp("work"), load_vlm(fluent_dir))


def build(samples: list[Sample], context: RunContext, config: DropoutNTPConfig, **changes: object) -> list[BuildResult]:
    return list(build_results(build_dropout_ntp, samples, context, config, **changes).values())


def describing(picture: int = 0, **fields: object) -> Sample:
    return Sample.model_validate(
        {"id": f"p{picture}", "images": (f"images/{picture}.png",), "prompt": DESCRIBE, **fields}
    )


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (0.5, "A red\n cup"),  # three of seven words
        (0.25, "A"),
        (0.75, "A red\n cup and blue"),
        (0.0, ""),
        (0.1, ""),
        (0.99, "A red\n cup and blue plate"),
    ],
)
def test_whole_words_are_kept_and_one_is_left_to_write(keep: float, kept: str) -> None:
    assert keep_beginning("A red\n cup and blue plate stand.", keep) == kept
    assert keep_beginning("No.", keep) == ""


def test_a_sampled_answer_is_cut_in_half_and_continued_blindly(fluent: RunContext) -> None:
    """The model knows its answer by heart; what it says without the picture is asked of it here a second time."""
    (result,) = build([describing(task="t")], fluent, BY_HEART)
    (pair,) = result.pairs
    known = LEARNED[0][2]
    kept = "A red cup and a blue plate stand"  # eight of sixteen words
    request = GenerateRequest(Prefix((), DESCRIBE), kept, seed=rejected_seed(describing(), 0))
    (blind,) = generate(fluent.vlm, [request], Sampling(60, 0.01), batch_size=1)
    assert (pair.id, pair.chosen, pair.rejected) == ("p0/dropout-ntp", known, (kept + blind.text).strip())
    assert pair.prompt == DESCRIBE and pair.images == ("images/0.png",)  # the pair itself has the picture
    (whole,) = generate(
        fluent.vlm, [GenerateRequest(Prefix((fluent.folder / "images/0.png",), DESCRIBE))], Sampling(60), batch_size=1
    )
    assert pair.provenance == {
        "chosen": "sampled",
        "kept_words": 8,
        "chosen_words": 16,
        "without": "removed",
        "chosen_finished": True,
        "rejected_finished": blind.finished,
        "tokens": whole.tokens + blind.tokens,
        "task": "t",
    }
    assert result.tallies == {"generated_tokens": whole.tokens + blind.tokens}


def test_a_reference_costs_nothing_and_is_chosen(samples: list[Sample], context: RunContext) -> None:
    for result, sample in zip(build(samples, context, CONFIG, chosen="reference", keep=0.75), samples, strict=True):
        (pair,) = result.pairs
        assert pair.chosen == sample.reference
        assert pair.rejected.startswith(keep_beginning(pair.chosen, 0.75))
        assert pair.provenance["tokens"] <= 8 and pair.provenance["chosen"] == "reference"


@pytest.mark.parametrize("without", ["removed", "hidden"])
def test_what_goes_on_has_not_seen_the_picture(
    samples: list[Sample], context: RunContext, tmp_path: Path, without: str
) -> None:
    """Other pictures under the same names: references given, nothing changes; answers sampled, they do."""
    save_scenes(tmp_path / "others", len(QUESTIONS), split="counter-test")
    others = make_context(tmp_path / "others", tmp_path, context.vlm)
    given = {"chosen": "reference", "without": without}
    assert build(samples, context, CONFIG, **given) == build(samples, others, CONFIG, **given)
    sampled = {"without": without}
    assert build(samples, context, CONFIG, **sampled) != build(samples, others, CONFIG, **sampled)


def test_hidden_is_a_prompt_with_the_picture_in_its_place(samples: list[Sample], context: RunContext) -> None:
    (result,) = build(samples[:1], context, CONFIG, chosen="reference", without="hidden")
    prefix = Prefix((context.folder / "images/0.png",), DESCRIBE)
    hidden = frozenset(range(image_token_count(context.vlm, prefix)))
    kept = keep_beginning(QUESTIONS[0][1], 0.5)
    request = GenerateRequest(prefix, kept, hidden, rejected_seed(samples[0], 0))
    (rest,) = generate(context.vlm, [request], Sampling(8, 1.0), batch_size=1)
    assert result.pairs[0].rejected == (kept + rest.text).strip()
    (removed,) = build(samples[:1], context, CONFIG, chosen="reference")
    assert removed.pairs[0].rejected != result.pairs[0].rejected


def test_places_of_pictures_are_taken_out_of_every_turn(samples: list[Sample], context: RunContext) -> None:
    earlier = (Turn(role="user", text="<image>\nIs it red?"), Turn(role="assistant", text="Yes."))
    talk = describing(
        images=("images/0.png", "images/1.png"), history=earlier, prompt="And <image> this?", reference="No cup."
    )
    (result,) = build([talk], context, CONFIG, chosen="reference")
    plain = Prefix((), "And  this?", (Turn(role="user", text="Is it red?"), earlier[1]))
    (rest,) = generate(
        context.vlm, [GenerateRequest(plain, "No", seed=rejected_seed(talk, 0))], Sampling(8, 1.0), batch_size=1
    )
    assert result.pairs[0].rejected == ("No" + rest.text).strip()
    assert result.pairs[0].prompt == talk.prompt and result.pairs[0].images == talk.images


def test_why_there_is_no_pair(fluent: RunContext) -> None:
    earlier = (Turn(role="user", text="Look."), Turn(role="assistant", text="Yes."))
    samples = {
        "no picture to leave out": describing(id="bare", images=()),
        "nothing is asked without the picture": describing(id="mute", history=earlier, prompt="<image>"),
        "the model says nothing": describing(id="silent", prompt=LEARNED[3][1]),
        "too long for the model": describing(id="long", prompt="cup " * 300),
        "": describing(id="good"),
    }
    results = build(list(samples.values()), fluent, BY_HEART)
    assert [one.dropped for one in results] == list(samples)
    assert [bool(one.pairs) for one in results] == [False, False, False, False, True]
    assert results[2].tallies == {"generated_tokens": 1}  # the end of turn
    (short,) = build([samples[""]], fluent, BY_HEART, max_new_tokens=6)
    assert short.dropped == "max_new_tokens cut the chosen answer off" and short.tallies == {"generated_tokens": 6}
    (kept,) = build([samples[""]], fluent, BY_HEART, max_new_tokens=6, unfinished=True)
    assert not kept.pairs[0].provenance["chosen_finished"]


def test_a_reference_too_long_to_go_on_from_is_dropped(context: RunContext) -> None:
    (result,) = build([describing(reference="There is a cup. " * 200)], context, CONFIG, chosen="reference")
    assert result.dropped == "too long for the model"


@pytest.mark.parametrize("without", ["removed", "hidden"])
def test_a_row_stands_alone(samples: list[Sample], context: RunContext, without: str) -> None:
    assert_rows_stand_alone(build_dropout_ntp, samples, context, CONFIG.model_copy(update={"without": without}))


def test_the_stage_goes_on_where_it_was(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(samples_dir, tmp_path / "samples")
    manifest = assert_goes_on(DROPOUT_NTP, CONFIG, model_dir, tmp_path / "samples", tmp_path)
    pairs = list(read_pairs(tmp_path / "whole"))
    assert manifest.counts == {"samples": 6, "pairs": len(pairs)}
    assert numbers_of(manifest)["generated_tokens"] >= sum(pair.provenance["tokens"] for pair in pairs) > 0


@pytest.mark.parametrize(
    ("override", "sentence"),
    [("keep=1", "keep = 1"), ("without=masked", "without = 'masked'"), ("chosen=own", "chosen = 'own'")],
)
def test_settings_that_make_no_sense_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_config(DropoutNTPConfig, None, [override])
