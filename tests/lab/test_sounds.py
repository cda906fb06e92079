"""The lab's sounds: what is drawn is what is told, questions have one right answer, and an ear that learns to hear."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor

from sightline.data.images import open_image
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.registry import get_benchmark
from sightline.evals.scoring import score_all
from sightline.evals.statistics import estimate
from sightline.lab import BASE
from sightline.lab.sound.bench import BESIDE, BOTH, HEAR, SEE, answer, lessons, media_questions
from sightline.lab.sound.ear import EarConfig, make_ear, make_processor, normalize
from sightline.lab.sound.soundscape import (
    AUDIBLE,
    PICTURE,
    SIDE,
    SOUND,
    VOICES,
    SoundSource,
    render_sound,
    render_with_sources,
    sample_soundscape,
    soundscapes,
)
from sightline.lab.words import KINDS, WorldConfig
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Sampling, make_prefix
from sightline.models.sampler import generate
from sightline.models.spec import to_spec
from sightline.recipes.composition.config import ComposeConfig, MemberConfig
from sightline.recipes.composition.run import compose
from sightline.records import Answer

WORLD = WorldConfig()


def test_a_voice_is_drawn_by_its_kind_and_varied_by_its_look() -> None:
    assert set(AUDIBLE) <= set(KINDS)
    assert len(set(VOICES.values())) == len(AUDIBLE) == 16
    same, other = render_sound([SoundSource("cow", 1)], 5), render_sound([SoundSource("cow", 2)], 5)
    assert same.size == (SIDE, SIDE) and same.mode == "L"
    assert same.tobytes() == render_sound([SoundSource("cow", 1)], 5).tobytes() != other.tobytes()
    # The kettle is high, the drum low: the upper half of its picture, and the lower one.
    kettle, drum = (np.asarray(render_sound([SoundSource(kind, 3)], 3), float) for kind in ("kettle", "drum"))
    assert kettle[: SIDE // 2].mean() > 1.3 * kettle[SIDE // 2 :].mean()
    assert drum[SIDE // 2 :].mean() > 1.3 * drum[: SIDE // 2].mean()


def test_every_source_is_heard_somewhere_and_patches_say_where() -> None:
    for number, kind in enumerate(AUDIBLE):
        for look in range(6):
            image, cells = render_with_sources([SoundSource(kind, 100 * number + look)], look)
            assert cells.shape == (16, 1) and cells.any()
            pixels = np.asarray(image, float).reshape(4, 12, 4, 12).mean((1, 3)).ravel()
            assert pixels[cells[:, 0]].mean() > pixels[~cells[:, 0]].mean()
    silence, none = render_with_sources([], 0)
    assert none.shape == (16, 0)
    assert np.asarray(silence).mean() < 20


def test_soundscapes_have_something_seen_something_heard_and_something_shared() -> None:
    found = list(soundscapes(WORLD, "validation", 60))
    assert found == list(soundscapes(WORLD, "validation", 60))
    for each in found:
        kinds = each.scene.kinds
        assert each.shared and each.seen and each.heard
        assert set(each.shared) | set(each.seen) == {kind for kind in AUDIBLE if kind in kinds}
        assert not set(each.heard) & kinds
        assert len(each.neither) == 16 - len(each.shared) - len(each.seen) - len(each.heard) >= 5
    assert any(sample_soundscape(WORLD, "validation", index) is None for index in range(20))


def test_questions_have_one_right_answer_and_show_what_they_need(tmp_path: Path) -> None:
    by_id = {each.scene.id: each for each in soundscapes(WORLD, "validation", 12)}
    rows = list(media_questions(WORLD, "validation", 12, tmp_path))
    assert len(rows) == 5 * 12
    for row in rows:
        soundscape, task = by_id[row.cluster], row.task.removesuffix(BESIDE)
        options = set(row.truth["options"])
        assert len(options) == 4 and row.reference == answer(row.truth["answer"])
        right = {
            SEE: {*soundscape.shared, *soundscape.seen},
            HEAR: {*soundscape.shared, *soundscape.heard},
            BOTH: set(soundscape.shared),
        }[task]
        assert options & right == {row.truth["answer"]}
        assert row.truth[HEAR] in options or task == HEAR
        whole = row.task == BOTH or row.task.endswith(BESIDE)
        assert row.media == ((PICTURE, SOUND) if whole else (PICTURE if task == SEE else SOUND,))
        sizes = {PICTURE: (96, 96), SOUND: (SIDE, SIDE)}
        for path, kind in zip(row.images, row.media, strict=True):
            assert open_image(tmp_path / path, row.id).size == sizes[kind]
    for task in (SEE, HEAR):
        for pair in lessons(WORLD, 8, tmp_path, task):
            assert pair.chosen != pair.rejected and len(pair.images) == 1
            assert "both" not in pair.prompt  # nobody is trained on what is shared


def test_the_benchmark_scores_the_first_kind_that_is_named(tmp_path: Path) -> None:
    bench = get_benchmark("shared-media", BenchmarkOptions(tmp_path, limit=4, validation=True))
    rows = list(bench.samples())
    texts = {
        row.id: row.truth["answer"] if row.task != BOTH else f"The {row.truth[SEE]}, or a {row.truth['answer']}."
        for row in rows
    }
    answers = {row.id: Answer(sample_id=row.id, cluster=row.cluster, text=texts[row.id]) for row in rows}
    found = estimate(score_all(bench, [(row, answers[row.id]) for row in rows]), bench.metrics)
    assert {name: result.value for name, result in found.items()} == {
        "both": 0.0, "see": 1.0, "hear": 1.0, "see_beside": 1.0, "hear_beside": 1.0, "both_seen": 1.0, "both_heard": 0.0
    }  # fmt: skip
    alone = get_benchmark("shared-media-sound", BenchmarkOptions(tmp_path, limit=4, validation=True))
    assert {(row.task, row.media) for row in alone.samples()} == {(HEAR, (SOUND,)), (BOTH, (SOUND,))}
    assert {row.id for row in alone.samples()} < {row.id for row in rows}


@pytest.mark.skipif(not (BASE / "model.safetensors").exists(), reason="there are no base weights yet")
def test_an_ear_learns_and_composes_with_the_base(tmp_path: Path) -> None:
    config = EarConfig(sounds=200, steps=12, batch_size=16)
    ear = make_ear(config, tmp_path / "ear")
    processor = make_processor(AutoProcessor.from_pretrained(BASE))  # type: ignore[no-untyped-call]
    image = render_sound([SoundSource("cow", 1)], 5)
    values = processor.image_processor(image.convert("RGB"), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(values, normalize(np.array(image)[None]), rtol=1e-5, atol=1e-5)
    members = {
        PICTURE: MemberConfig(model=to_spec(BASE)),
        SOUND: MemberConfig(model=to_spec(ear)),
    }  # same base, or it would refuse
    vlm = load_vlm(compose(ComposeConfig(members=members, dtype="bfloat16"), tmp_path / "bare"))
    rows = list(media_questions(WORLD, "validation", 1, tmp_path))
    requests = [GenerateRequest(make_prefix(row, tmp_path)) for row in rows]
    together = generate(vlm, requests, Sampling(5), batch_size=5)
    assert together == [generate(vlm, [request], Sampling(5), batch_size=1)[0] for request in requests]
