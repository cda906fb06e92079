"""The stage `pairs bdhs`: its dataset, counts, resumption after kills, and refusals."""

import json
import multiprocessing
import os
import re
import shutil
import signal
from pathlib import Path

import datasets
import pytest

from sightline.builders.bdhs import BDHS, BDHSConfig
from sightline.builders.build import BuildPlan, build_dataset, dropped_reason
from sightline.builders.builder import BuildResult
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import read_samples, write_samples
from sightline.errors import InputError
from sightline.models.encoding import encode_prefill, encode_prefix, fits
from sightline.models.loading import load_vlm
from sightline.models.requests import Prefix
from sightline.models.vlm import VLM
from sightline.records import Manifest, Pair, Sample, read_manifest, read_rows
from tests.builders.conftest import ASK, DESCRIBE, LEARNED, make_samples

CONFIG = BDHSConfig(rho=0.8, tries=3, threshold=0.35, max_new_tokens=8, batch_size=8, wave=3)


@pytest.fixture(scope="session")
def whole(model_dir: Path, samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole") / "pairs"
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out)
    return out


def copied(samples_dir: Path, directory: Path) -> Path:
    """The same samples in another place, where a test may spoil them."""
    shutil.copytree(samples_dir, directory)
    return directory


def numbers_of(manifest: Manifest) -> dict[str, float]:
    """All but how often the cache had it, which an earlier run decides."""
    return {name: value for name, value in manifest.numbers.items() if name != "cache_hit_rate"}


# --- the dataset ------------------------------------------------------------------------------------------------------


def test_datasets_opens_the_folder(whole: Path, samples_dir: Path, tmp_path: Path) -> None:
    rows = datasets.load_dataset(str(whole), split="train", cache_dir=str(tmp_path))
    samples = {f"{sample.id}/bdhs": sample for sample in read_samples(samples_dir)}
    assert rows["id"] == sorted(samples)
    for row, pair in zip(rows, read_pairs(whole), strict=True):
        sample = samples[row["id"]]
        assert row["images"][0].size == (96, 96)
        question = [{"type": "image", "text": None}, {"type": "text", "text": sample.prompt}]
        assert row["prompt"] == [{"role": "user", "content": question}]
        assert row["chosen"] == [{"role": "assistant", "content": [{"type": "text", "text": sample.reference}]}]
        assert row["rejected"] == [{"role": "assistant", "content": [{"type": "text", "text": pair.rejected}]}]
        assert json.loads(row["provenance"]) == pair.provenance
        assert (whole / pair.images[0]).read_bytes() == (samples_dir / pair.images[0]).read_bytes()


def test_the_accounts_add_up(whole: Path) -> None:
    manifest = read_manifest(whole)
    pairs = list(read_pairs(whole))
    tries = [pair.provenance["tries"] for pair in pairs]
    assert manifest.complete and manifest.dropped == {}
    assert manifest.counts == {"samples": 6, "pairs": 6}
    assert len(set(tries)) > 1
    similar = sum(pair.provenance["similar"] for pair in pairs)
    assert numbers_of(manifest) == {
        "share_similar_after_try_1": sum(number > 1 for number in tries) / 6,
        "share_similar_after_try_2": sum(number > 2 for number in tries) / 6,
        "share_similar_after_try_3": similar / 6,
        "generated_tokens": sum(pair.provenance["tokens"] for pair in pairs),
    }
    assert manifest.seed == 0 and manifest.config == CONFIG.model_dump(mode="json")
    assert set(manifest.inputs) == {"model", "samples"}


def test_answers_that_teach_nothing_are_dropped_and_counted(
    fluent_dir: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """The model knows the first reference by heart, says nothing to the second prompt, and cannot know the third."""
    images = copied(samples_dir, tmp_path / "samples")
    questions = ((DESCRIBE, LEARNED[0][2]), (LEARNED[3][1], "Nothing."), (DESCRIBE, "A tractor is on the farm."))
    write_samples(images, make_samples(["images/0.png"] * 3, questions))
    config = BDHSConfig(rho=0, tries=2, temperature=0.01, max_new_tokens=40)
    calls: list[tuple[int, int]] = []
    manifest = build_dataset(
        BuildPlan(BDHS, config), fluent_dir, images, tmp_path / "out", lambda done, total: calls.append((done, total))
    )
    assert manifest.dropped == {"rejected equals chosen": 1, "empty rejected answer": 1}
    assert manifest.counts["samples"] == 3 and manifest.counts["pairs"] == 1
    assert manifest.numbers["share_similar_after_try_2"] == pytest.approx(1 / 3)
    assert [pair.id for pair in read_pairs(tmp_path / "out")] == ["scene-02/bdhs"]
    assert calls == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_row_that_does_not_fit_the_model_is_dropped_and_counted(
    model_dir: Path, samples_dir: Path, tmp_path: Path
) -> None:
    """The tiny model has 256 positions, the second reference alone more than 300 tokens."""
    images = copied(samples_dir, tmp_path / "samples")
    questions = ((DESCRIBE, "A cup. A pan."), (DESCRIBE, "There is a cup. " * 60), (DESCRIBE, "Two cows. One hen."))
    write_samples(images, make_samples(["images/0.png"] * 3, questions))
    calls: list[int] = []
    manifest = build_dataset(
        BuildPlan(BDHS, CONFIG), model_dir, images, tmp_path / "out", lambda done, total: calls.append(done)
    )
    assert manifest.dropped == {"too long for the model": 1}
    assert (manifest.counts["samples"], manifest.counts["pairs"]) == (3, 2)
    assert [pair.id for pair in read_pairs(tmp_path / "out")] == ["scene-00/bdhs", "scene-02/bdhs"]
    assert calls == [0, 1, 2, 3]


def test_shares_are_of_the_samples_that_were_tried(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    """A sample that does not fit was never tried, and says nothing of how many tries were similar."""
    images = copied(samples_dir, tmp_path / "samples")
    questions = ((DESCRIBE, "A cup. A pan."), (DESCRIBE, "There is a cup. " * 60), (DESCRIBE, "There is a pan. " * 60))
    write_samples(images, make_samples(["images/0.png"] * 3, questions))
    config = CONFIG.model_copy(update={"tries": 1, "threshold": 1e-9})
    manifest = build_dataset(BuildPlan(BDHS, config), model_dir, images, tmp_path / "out")
    assert manifest.counts == {"samples": 3, "pairs": 1} and manifest.dropped == {"too long for the model": 2}
    assert manifest.numbers["share_similar_after_try_1"] == 1.0


def test_what_fits_is_counted_with_the_new_tokens(vlm: VLM, samples: list[Sample], samples_dir: Path) -> None:
    prefix = Prefix((samples_dir / samples[0].images[0],), samples[0].prompt)
    assert samples[0].reference is not None
    room = vlm.max_tokens - len(encode_prefill(vlm, encode_prefix(vlm, prefix), samples[0].reference).ids)
    for new, fitting in ((room, True), (room + 1, False)):
        assert fits(vlm, prefix, samples[0].reference, new) is fitting


@pytest.mark.parametrize(
    ("rejected", "reason"),
    [
        (" ", "empty rejected answer"),
        ("A cup. ", "rejected equals chosen"),
        ("a cup.", None),
        ("A cup", None),
    ],
)
def test_reasons(rejected: str, reason: str | None) -> None:
    pair = Pair(id="p", prompt="?", chosen="A cup.", rejected=rejected, builder="bdhs")
    assert dropped_reason(pair) == reason


def test_white_space_around_a_reference_is_no_difference_to_learn(
    model_dir: Path, samples_dir: Path, tmp_path: Path
) -> None:
    images = copied(samples_dir, tmp_path / "samples")
    write_samples(images, make_samples(["images/0.png"], ((DESCRIBE, "  A cup. A pan.\n"),)))
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, images, tmp_path / "out")
    (pair,) = read_pairs(tmp_path / "out")
    assert pair.chosen == "A cup. A pan." and pair.rejected == pair.rejected.strip()


# --- interruptions ----------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Stands for whatever ends a process early but lets it clean up."""


def interrupt_after(rows: int) -> object:
    def progress(done: int, total: int) -> None:
        if done == rows:
            raise Interrupted

    return progress


def kill_after(rows: int, model: Path, samples: Path, out: Path) -> None:
    """Build, one row a write, until this process is killed without a word."""
    import sightline.builders.build as build

    def progress(done: int, total: int) -> None:
        if done == rows:
            os.kill(os.getpid(), signal.SIGKILL)

    build._ROWS_AT_ONCE = 1
    build_dataset(BuildPlan(BDHS, CONFIG), model, samples, out, progress)


def assert_the_same(out: Path, whole: Path) -> None:
    assert (out / "pairs.jsonl").read_bytes() == (whole / "pairs.jsonl").read_bytes()
    manifest, wanted = read_manifest(out), read_manifest(whole)
    assert (manifest.counts, manifest.dropped) == (wanted.counts, wanted.dropped)
    assert numbers_of(manifest) == numbers_of(wanted)
    assert manifest.key == wanted.key


def test_an_interruption_loses_no_row_and_the_same_pairs_come_out(
    model_dir: Path, samples_dir: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pairs"
    with pytest.raises(Interrupted):
        build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out, interrupt_after(3))  # type: ignore[arg-type]
    assert len(list(read_rows(out / "work/built.jsonl", BuildResult))) == 3  # though fewer than are written at once
    assert not read_manifest(out).complete and not (out / "pairs.jsonl").exists()
    calls: list[int] = []
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out, lambda done, total: calls.append(done))
    assert calls == [3, 4, 5, 6]
    assert_the_same(out, whole)
    assert read_manifest(out).runs == 2


def test_an_output_that_vanishes_is_an_error(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"

    def remove(done: int, total: int) -> None:
        if done == 3:
            shutil.rmtree(out)

    with pytest.raises(InputError, match=r"pairs and its pairs were removed while the command ran"):
        build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out, remove)
    assert not (out / "pairs.jsonl").exists()
    assert build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out).counts == {"samples": 6, "pairs": 6}


def test_rows_that_vanish_are_missed(
    model_dir: Path, samples_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written two at a time, and the first two removed on the way: four of six are no whole."""
    monkeypatch.setattr("sightline.builders.build._ROWS_AT_ONCE", 2)
    out = tmp_path / "pairs"

    def remove(done: int, total: int) -> None:
        if done == 3:
            (out / "work/built.jsonl").unlink()

    with pytest.raises(InputError, match=r"built\.jsonl holds 4 of 6 samples: rows were removed"):
        build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out, remove)
    assert not read_manifest(out).complete
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out)
    assert read_manifest(out).counts == {"samples": 6, "pairs": 6}


def test_linked_pictures_reach_the_pairs(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(samples_dir / "images", tmp_path / "cache/blobs")
    for number in range(6):
        link = tmp_path / f"cache/snapshots/abc/images/{number}.png"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(f"../../../blobs/{number}.png")
    shutil.copyfile(samples_dir / "samples.jsonl", tmp_path / "cache/snapshots/abc/samples.jsonl")
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, tmp_path / "cache/snapshots/abc", tmp_path / "out")
    for pair in read_pairs(tmp_path / "out"):
        found = tmp_path / "out" / pair.images[0]
        assert not found.is_symlink() and found.read_bytes() == (samples_dir / pair.images[0]).read_bytes()


@pytest.mark.parametrize("kept", [0, 2, 6])
def test_a_torn_last_row_is_built_again(
    model_dir: Path, samples_dir: Path, whole: Path, tmp_path: Path, kept: int
) -> None:
    out = tmp_path / "pairs"
    shutil.copytree(whole, out)
    for path in (out / "pairs.jsonl", out / "README.md"):
        path.unlink()
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "complete": False, "counts": {}, "numbers": {}}))
    lines = (whole / "work/built.jsonl").read_bytes().splitlines(keepends=True)
    torn = lines[kept][:30] if kept < len(lines) else b'{"id": "sce'
    (out / "work/built.jsonl").write_bytes(b"".join(lines[:kept]) + torn)
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out)
    assert_the_same(out, whole)


def test_killed_for_real_and_started_again(model_dir: Path, samples_dir: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs"
    context = multiprocessing.get_context("forkserver")  # a fresh process each; threads do not survive a plain fork
    context.set_forkserver_preload(["sightline.builders.build", "sightline.lab.drawing", "datasets", "pytest"])
    for rows in (2, 5):
        process = context.Process(target=kill_after, args=(rows, model_dir, samples_dir, out))
        process.start()
        process.join(300)
        assert process.exitcode == -signal.SIGKILL
        assert len(list(read_rows(out / "work/built.jsonl", BuildResult))) == rows
    build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, out)
    assert_the_same(out, whole)
    assert read_manifest(out).runs == 3


def test_a_finished_dataset_is_left_alone(model_dir: Path, samples_dir: Path, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()}
    calls: list[int] = []
    manifest = build_dataset(
        BuildPlan(BDHS, CONFIG), model_dir, samples_dir, whole, lambda done, total: calls.append(done)
    )
    assert manifest == read_manifest(whole) and calls == []
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file()} == before


def test_samples_may_be_a_file_and_another_seed_makes_other_pairs(
    model_dir: Path, samples_dir: Path, whole: Path, tmp_path: Path
) -> None:
    for seed, name in ((0, "same"), (1, "other")):
        build_dataset(BuildPlan(BDHS, CONFIG, seed), model_dir, samples_dir / "samples.jsonl", tmp_path / name)
    assert (tmp_path / "same/pairs.jsonl").read_bytes() == (whole / "pairs.jsonl").read_bytes()
    assert (tmp_path / "other/pairs.jsonl").read_bytes() != (whole / "pairs.jsonl").read_bytes()


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusal(model: Path, samples: Path, out: Path) -> str:
    """The sentence of a refusal, which comes before any work and before the directory is claimed."""
    calls: list[int] = []
    with pytest.raises(InputError) as caught:
        build_dataset(BuildPlan(BDHS, CONFIG), model, samples, out, lambda done, total: calls.append(done))
    assert calls == [] and not out.exists()
    return str(caught.value)


@pytest.mark.parametrize("reference", [None, "", "  "])
def test_a_sample_without_reference_is_refused_before_any_work(
    model_dir: Path, samples_dir: Path, tmp_path: Path, reference: str | None
) -> None:
    images = copied(samples_dir, tmp_path / "samples")
    rows = make_samples(["images/0.png", "images/1.png"])
    write_samples(images, [rows[0], rows[1].model_copy(update={"reference": reference})])
    assert "line 2 (id 'scene-01'): the reference is empty" in refusal(model_dir, images, tmp_path / "out")


def test_a_damaged_image_is_refused_before_any_work(model_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    images = copied(samples_dir, tmp_path / "samples")
    image = images / "images/5.png"
    image.write_bytes(image.read_bytes()[:200])
    message = refusal(model_dir, images, tmp_path / "out")
    assert re.search(r"id 'scene-05'.*5\.png is truncated or damaged", message)
    shutil.copyfile(samples_dir / "images/5.png", image)
    assert build_dataset(
        BuildPlan(BDHS, CONFIG), model_dir, images, tmp_path / "out"
    ).complete  # the same --out still serves


def test_a_model_without_processor_is_refused_before_any_work(
    model_dir: Path, samples_dir: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    load_vlm(model_dir).model.save_pretrained(bare)
    assert re.search("bare has no .*processor", refusal(bare, samples_dir, tmp_path / "out"))


def test_no_samples_are_refused(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").touch()
    assert "samples.jsonl holds no samples" in refusal(model_dir, tmp_path / "samples.jsonl", tmp_path / "out")
    assert "none does not exist" in refusal(model_dir, tmp_path / "none", tmp_path / "out")


def test_another_run_is_refused_and_keeps_what_it_has(
    model_dir: Path, samples_dir: Path, whole: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    other = CONFIG.model_copy(update={"rho": 0.5})
    with pytest.raises(InputError, match=r"holds another run \(rho there: 0\.8, here: 0\.5\)"):
        build_dataset(BuildPlan(BDHS, other), model_dir, samples_dir, whole)
    with pytest.raises(InputError, match=r"seed there: 0, here: 1"):
        build_dataset(BuildPlan(BDHS, CONFIG, 1), model_dir, samples_dir, whole)
    with pytest.raises(InputError, match="holds other files"):
        build_dataset(BuildPlan(BDHS, CONFIG), model_dir, samples_dir, samples_dir)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_nothing_to_keep_says_what_to_try(fluent_dir: Path, samples_dir: Path, tmp_path: Path) -> None:
    images = copied(samples_dir, tmp_path / "samples")
    write_samples(images, make_samples(["images/0.png"], ((ASK, LEARNED[2][2]), (DESCRIBE, LEARNED[0][2]))[1:]))
    config = BDHSConfig(rho=0, tries=2, temperature=0.01, max_new_tokens=40)
    with pytest.raises(InputError, match=r"no pair is left.*'rejected equals chosen': 1.*try a higher rho"):
        build_dataset(BuildPlan(BDHS, config), fluent_dir, images, tmp_path / "out")
    assert not (tmp_path / "out/pairs.jsonl").exists()
