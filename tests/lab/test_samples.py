"""`lab scenes`: references as imperfect as configured, the same rows every time, and a stage that goes on."""

import math
from collections import Counter
from pathlib import Path

import pytest

from sightline.data.images import open_image
from sightline.data.samples import read_samples
from sightline.errors import InputError
from sightline.lab.drawing import render
from sightline.lab.language import ReferenceNoise, object_groups
from sightline.lab.parser import Judgement, judge, parse_claims
from sightline.lab.questions import CAPTION_PROMPTS, DESCRIBE_PROMPTS
from sightline.lab.samples import ScenesConfig, image_name, image_path, lab_samples, write_scenes
from sightline.lab.sound.soundscape import SOUND, media_paths, soundscapes
from sightline.lab.words import COMPANION, THEME_OF, THEMES, WorldConfig
from sightline.lab.world import SPLITS, Scene, sample_scene
from sightline.records import Sample, read_manifest

COUNT = 1500


@pytest.fixture(scope="module")
def undrawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every picture seems to be there already, for tests that look at words only."""
    folder = tmp_path_factory.mktemp("undrawn")
    (folder / "images").mkdir()
    for index in range(COUNT):
        (folder / image_name(sample_scene(WorldConfig(), "preference", index))).touch()
    return folder


@pytest.fixture(scope="module")
def rows(undrawn: Path) -> list[Sample]:
    return list(lab_samples(ScenesConfig(), "preference", COUNT, undrawn))


def judged(row: Sample) -> tuple[Scene, Judgement]:
    """A row's scene, and what the oracle says of its reference."""
    scene = Scene.from_truth(row.truth)
    assert row.reference is not None
    return scene, judge(parse_claims(row.reference), scene)


def near(count: int, total: int, share: float) -> bool:
    """Whether a count agrees with its share, within four standard deviations."""
    return abs(count / total - share) <= 4 * math.sqrt(share * (1 - share) / total)


# --- what is asked and how wrong the references are -------------------------------------------------------------------


def test_tasks_come_at_the_configured_rates(rows: list[Sample]) -> None:
    tasks = Counter(row.task for row in rows)
    assert near(tasks["description"], COUNT, 0.8) and near(tasks["caption"], COUNT, 0.05)
    assert set(tasks) == {"description", "caption", "yes-no", "count", "color", "position", "relation", "open"}
    prompts: dict[str, set[str]] = {}
    for row in rows:
        prompts.setdefault(row.task, set()).add(row.prompt)
    assert prompts["description"] == set(DESCRIBE_PROMPTS) and prompts["caption"] == set(CAPTION_PROMPTS)


@pytest.mark.parametrize("task", ["description", "caption", "question"])
def test_one_task_alone(undrawn: Path, task: str) -> None:
    config = ScenesConfig(described=float(task == "description"), captioned=float(task == "caption"))
    tasks = {row.task for row in lab_samples(config, "preference", 60, undrawn)}
    assert tasks == {task} if task != "question" else tasks.isdisjoint({"description", "caption"})


def test_references_are_wrong_at_the_configured_rates(rows: list[Sample]) -> None:
    """A color of those that are drawn anew is the same in one of eight cases, so 7 / 8 of them are wrong."""
    noise = ScenesConfig().noise
    described = [row for row in rows if row.task == "description"]
    invented = left_out = kinds = colors = wrong_colors = 0
    for row in described:
        scene = Scene.from_truth(row.truth)
        assert row.reference is not None
        claims = parse_claims(row.reference)
        verdict = judge(claims, scene)
        absent = {mention.kind for mention in verdict.hallucinated}
        assert len(absent) <= 1
        invented += len(absent)
        left_out += len(scene.kinds - verdict.mentioned)
        kinds += len(scene.kinds)
        introduced = [m for m in claims.mentions if m.count is not None and m.kind in scene.kinds]
        colors += len(introduced)
        wrong_colors += sum(m in verdict.wrong_colors for m in introduced)
    lone = sum(
        any(kind in COMPANION and COMPANION[kind] not in scene.kinds for kind in scene.kinds)
        for scene in (Scene.from_truth(row.truth) for row in described)
    )
    share = (lone * noise.companion + (len(described) - lone) * noise.absent_object) / len(described)
    assert near(invented, len(described), share)
    assert near(wrong_colors, colors, noise.wrong_color * 7 / 8)
    # The only kind of a scene is never left out, so a little fewer are than configured.
    assert noise.omitted / 2 < left_out / kinds < noise.omitted * 1.2


def test_what_is_invented_fits_the_scene(rows: list[Sample]) -> None:
    """Absent objects are companions of what is there, or of the theme: the lie that a prior would tell."""
    fitting = invented = 0
    for row in rows:
        if row.task == "description" and row.reference is not None:
            scene = Scene.from_truth(row.truth)
            themes = {THEME_OF[kind] for kind in scene.kinds} | {scene.theme}
            for mention in judge(parse_claims(row.reference), scene).hallucinated:
                invented += 1
                fitting += THEME_OF[mention.kind] in themes or set(THEMES[scene.theme]) <= scene.kinds
    assert fitting == invented > 50


def test_without_noise_references_are_true_and_whole(undrawn: Path) -> None:
    quiet = ScenesConfig(noise=ReferenceNoise(companion=0, absent_object=0, wrong_color=0, omitted=0), described=1.0)
    for row in lab_samples(quiet, "preference", 300, undrawn):
        scene, verdict = judged(row)
        assert verdict.mentioned == scene.kinds, row.reference
        assert not (verdict.hallucinated or verdict.wrong_colors or verdict.wrong_counts or verdict.wrong_relations)


def test_noise_goes_where_it_is_told(undrawn: Path) -> None:
    loud = ScenesConfig(noise=ReferenceNoise(companion=1, absent_object=1, wrong_color=0, omitted=1), described=1.0)
    for row in lab_samples(loud, "preference", 100, undrawn):
        scene, verdict = judged(row)
        assert len({mention.kind for mention in verdict.hallucinated}) == 1
        assert verdict.mentioned == {object_groups(scene)[0].kind}  # all are left out but the first


def test_answers_to_questions_are_true(rows: list[Sample]) -> None:
    claims = [row for row in rows if row.task in ("yes-no", "count", "color")]
    assert len(claims) > 100
    for row in claims:
        scene, verdict = judged(row)
        assert not (verdict.hallucinated or verdict.wrong_colors or verdict.wrong_counts), row.reference
        if row.task == "yes-no":
            (questions,) = {mention.kind for mention in parse_claims(row.prompt).mentions}
            assert str(row.reference).startswith("Yes" if questions in scene.kinds else "No")


def test_a_sample_holds_its_scene(rows: list[Sample]) -> None:
    for index in (0, 7, COUNT - 1):
        scene = sample_scene(WorldConfig(), "preference", index)
        assert Scene.from_truth(rows[index].truth) == scene
        assert (rows[index].id, rows[index].cluster) == (scene.id, scene.id)
        assert rows[index].images == (image_name(scene),)


# --- the stage --------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for Ctrl-C."""


def test_an_interrupted_stage_goes_on_and_a_finished_one_is_left_alone(tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert write_scenes(ScenesConfig(), "preference", 12, whole) == whole

    def dying(done: int, total: int) -> None:
        if done == 5:
            raise Interrupted

    with pytest.raises(Interrupted):
        write_scenes(ScenesConfig(), "preference", 12, out, dying)
    assert not read_manifest(out).complete and not (out / "samples.jsonl").exists()
    drawn = {path.name: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    assert len(drawn) == 5

    calls: list[tuple[int, int]] = []
    write_scenes(ScenesConfig(), "preference", 12, out, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 12) for done in range(13)]
    assert {name: (out / "images" / name).stat().st_mtime_ns for name in drawn} == drawn
    assert (out / "samples.jsonl").read_bytes() == (whole / "samples.jsonl").read_bytes()
    assert read_manifest(out).counts == {"samples": 12} and read_manifest(out).complete
    assert not [path for path in out.rglob("*") if path.suffix == ".tmp"]

    calls.clear()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    write_scenes(ScenesConfig(), "preference", 12, out, lambda done, total: calls.append((done, total)))
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()} == before


def test_the_directory_is_one_that_every_stage_reads(tmp_path: Path) -> None:
    out = write_scenes(ScenesConfig(), "validation", 4, tmp_path / "out")
    rows = list(read_samples(out, require_reference=True))
    assert [row.id for row in rows] == [f"validation-{number:06d}" for number in range(4)]
    for number, row in enumerate(rows):
        picture = open_image(out / row.images[0], row.id)
        assert picture.tobytes() == render(sample_scene(WorldConfig(), "validation", number)).tobytes()


@pytest.mark.parametrize("drawn", [False, True])
def test_half_a_picture_is_never_taken_for_one_and_is_removed(tmp_path: Path, drawn: bool) -> None:
    """A killed process leaves a hidden file, while another may have drawn the picture."""
    scene = sample_scene(WorldConfig(), "preference", 0)
    if drawn:
        image_path(tmp_path, scene)
    (tmp_path / "images").mkdir(exist_ok=True)
    left = tmp_path / image_name(scene)
    left.with_name(f".{left.name}.0.tmp").write_bytes(b"half")
    name = image_path(tmp_path, scene)
    assert open_image(tmp_path / name, "here").size == (96, 96)
    assert [path.name for path in (tmp_path / "images").iterdir()] == [Path(name).name]


def test_a_sound_leaves_nothing_behind_either(tmp_path: Path) -> None:
    (soundscape,) = soundscapes(WorldConfig(), "train", 1)
    sound = tmp_path / media_paths(tmp_path, soundscape)[SOUND]
    sound.with_name(f".{sound.name}.0.tmp").write_bytes(b"half")
    sound.unlink()
    media_paths(tmp_path, soundscape)
    assert list(tmp_path.rglob(".*")) == [] and open_image(sound, "here").size


def test_a_picture_of_another_world_is_not_taken(tmp_path: Path) -> None:
    """Two worlds have a scene of the same number; both are drawn, each under its own name."""
    here, there = (sample_scene(WorldConfig(seed=seed), "preference", 0) for seed in (0, 1))
    names = [image_path(tmp_path, scene) for scene in (here, there)]
    assert len(set(names)) == 2
    for name, scene in zip(names, (here, there), strict=True):
        assert open_image(tmp_path / name, "here").tobytes() == render(scene).tobytes()


@pytest.mark.parametrize(
    ("split", "near"), [("prefernce", "preference"), ("Test", "test"), ("countertest", "counter-test"), ("", "")]
)
def test_an_unknown_split_names_the_nearest(tmp_path: Path, split: str, near: str) -> None:
    with pytest.raises(InputError, match=f"there is no split '{split}'; did you mean '{near}"):
        write_scenes(ScenesConfig(), split, 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_run_is_refused(tmp_path: Path) -> None:
    out = write_scenes(ScenesConfig(), "preference", 2, tmp_path / "out")
    before = (out / "samples.jsonl").read_bytes()
    for split, count, config, difference in (
        ("preference", 3, ScenesConfig(), "count there: 2, here: 3"),
        ("test", 2, ScenesConfig(), "split there: 'preference', here: 'test'"),
        ("preference", 2, ScenesConfig(described=0.5), r"scenes\.described there: 0\.8, here: 0\.5"),
    ):
        with pytest.raises(InputError, match=difference):
            write_scenes(config, split, count, out)
    assert (out / "samples.jsonl").read_bytes() == before


def test_no_scene_of_one_split_is_in_another(tmp_path: Path) -> None:
    seen: dict[str, set[tuple[object, ...]]] = {
        split: {sample_scene(WorldConfig(), split, index).objects for index in range(40)} for split in SPLITS
    }
    assert sum(map(len, seen.values())) == len(set().union(*seen.values())) == 40 * len(SPLITS)
