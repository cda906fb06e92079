"""Content hashes, and the life cycle of a stage: start, resume, skip, refuse."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sightline
from sightline.config import Config
from sightline.errors import InputError
from sightline.records import Manifest, Stage, content_hash, hash_file, hash_json, hash_tree, read_manifest
from sightline.records.manifest import Computed, git_revision, installed_versions, record_computed
from sightline.records.store import write_json


class Settings(Config):
    """The config of the stage under test."""

    beta: float = 0.1
    name: str = "words"


def source(folder: Path, text: str = "one") -> Path:
    path = folder / "source.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(directory: Path, stage: str = "pairs", config: Config | None = None, seed: int = 0, **inputs: Path) -> str:
    with pytest.raises(InputError) as caught:
        Stage.open(directory, stage, config or Settings(), inputs, seed)
    return str(caught.value).replace(str(directory.parent) + "/", "")


def test_file_hash_is_sha256(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert hash_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_file_hash_follows_a_change_of_the_same_size_and_time(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    old = time.time() - 1000
    os.utime(path, (old, old))
    before = hash_file(path)
    path.write_bytes(b"abd")
    os.utime(path, (old, old))
    assert hash_file(path) != before


def test_settled_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    monkeypatch.setattr("sightline.records.hashing._SETTLED", -1000.0)
    first = hash_file(path)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert hash_file(path) == first


def test_tree_hash_sees_names_and_contents_but_no_times_or_caches(tmp_path: Path) -> None:
    def build(name: str, **files: str) -> Path:
        for file, text in files.items():
            path = tmp_path / name / file.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / name

    tree = hash_tree(build("a", x="1", y__z="2"))
    same = build("b", y__z="2", x="1")
    build("b/.git", HEAD="3")
    (same / "up").symlink_to(same)  # a loop ends
    assert hash_tree(same) == tree
    assert hash_tree(build("c", x="1", y="2")) != tree
    assert hash_tree(build("d", x="1", y__z="3")) != tree
    assert hash_tree(build("e", x="12", y__z="")) != tree
    (tmp_path / "f").symlink_to(tmp_path / "a")
    assert hash_tree(tmp_path / "f") == tree
    with pytest.raises(InputError, match="is not a directory"):
        hash_tree(tmp_path / "nowhere")


def test_value_hash_ignores_the_order_of_keys() -> None:
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 1.5})


def test_stage_from_nothing_to_done(tmp_path: Path) -> None:
    inputs = {"samples": source(tmp_path)}
    stage = Stage.open(tmp_path / "out", "pairs", Settings(), inputs, seed=3)
    assert not stage.done
    begun = read_manifest(tmp_path / "out")
    assert not begun.complete
    assert begun.config == {"beta": 0.1, "name": "words"}
    assert begun.inputs == {"samples": hash_file(inputs["samples"])}
    stage.finish({"kept": 3}, {"too long": 1}, {"tokens": 12.5})
    done = Stage.open(tmp_path / "out", "pairs", Settings(), inputs, seed=3)
    assert done.done
    assert done.manifest == read_manifest(tmp_path / "out")
    assert (done.manifest.counts, done.manifest.dropped) == ({"kept": 3}, {"too long": 1})
    assert (done.manifest.numbers, done.manifest.runs) == ({"tokens": 12.5}, 1)
    assert 0 < done.manifest.seconds < 60
    with pytest.raises(ValueError, match="already complete"):
        done.finish()


def test_stopped_stage_goes_on(tmp_path: Path) -> None:
    Stage.open(tmp_path / "out", "pairs", Settings(), {})
    (tmp_path / "out" / "pairs.jsonl").write_text("", encoding="utf-8")
    again = Stage.open(tmp_path / "out", "pairs", Settings(), {})
    assert not again.done
    assert again.finish().runs == 2


def test_another_run_is_refused_with_the_difference(tmp_path: Path) -> None:
    samples = source(tmp_path)
    Stage.open(tmp_path / "out", "pairs", Settings(), {"samples": samples}).finish({"kept": 1})
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    out = tmp_path / "out"
    remedy = "; choose another --out or delete the directory"
    assert refusal(out, "train", samples=samples) == (
        f"output directory out holds another run (stage there: 'pairs', here: 'train'){remedy}"
    )
    assert f"(beta there: 0.1, here: 0.2){remedy}" in refusal(out, config=Settings(beta=0.2), samples=samples)
    assert f"(seed there: 0, here: 7){remedy}" in refusal(out, seed=7, samples=samples)
    assert "(input changed: other, samples)" in refusal(out, other=samples)
    source(tmp_path, "two")
    assert "(input changed: samples)" in refusal(out, samples=samples)
    assert (out / "manifest.json").read_bytes() == before


def test_foreign_directories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / ".hidden").touch()
    Stage.open(tmp_path / "photos", "pairs", Settings(), {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "cat.png").touch()
    assert refusal(tmp_path / "other") == "output directory other holds other files ('cat.png'); choose another --out"
    (tmp_path / "web").mkdir()
    write_json(tmp_path / "web" / "manifest.json", {"short_name": "app"})
    assert "web/manifest.json is not a manifest of this version" in refusal(tmp_path / "web")
    (tmp_path / "file").touch()
    assert "output directory file cannot be created" in refusal(tmp_path / "file")


def test_missing_and_unfinished_inputs_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    assert "samples" in refusal(tmp_path / "out", samples=tmp_path / "nowhere")
    Stage.open(tmp_path / "scenes", "lab scenes", Settings(), {})
    text = refusal(tmp_path / "out", samples=tmp_path / "scenes")
    assert text == "samples scenes is not finished; run the command that creates it ('lab scenes') again"
    assert not (tmp_path / "out").exists()


def test_hash_of_a_stage_directory_is_its_key_and_data(tmp_path: Path) -> None:
    def finished_stage(name: str, text: str, beta: float = 0.1) -> Path:
        stage = Stage.open(tmp_path / name, "pairs", Settings(beta=beta), {})
        (tmp_path / name / "pairs.jsonl").write_text(text, encoding="utf-8")
        stage.finish(numbers={"noise": time.time()})
        return tmp_path / name

    first = content_hash(finished_stage("a", "x"))
    assert content_hash(finished_stage("b", "x")) == first  # times, places and versions do not count
    assert content_hash(finished_stage("c", "y")) != first
    assert content_hash(finished_stage("d", "x", beta=0.2)) != first


def test_hash_of_a_model_directory_is_its_files(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / "manifest.json").write_text("{}", encoding="utf-8")  # somebody else's
    assert content_hash(model) == hash_tree(model)
    before = content_hash(model)
    (model / "model.safetensors").write_bytes(b"1")
    assert content_hash(model) != before


def test_numbers_of_a_manifest_are_finite(tmp_path: Path) -> None:
    stage = Stage.open(tmp_path / "out", "pairs", Settings(), {})
    with pytest.raises(ValueError, match="finite number"):
        stage.finish(numbers={"loss": float("nan")})
    assert not read_manifest(tmp_path / "out").complete


WORKER = """
import sys, time
from pathlib import Path
from sightline.records import Answer, Stage, append_rows
from sightline.config import Config
out = Path(sys.argv[1])
stage = Stage.open(out, "eval", Config(), {})
print("open", flush=True)
for index in range(2000):
    row = Answer(sample_id=str(index), cluster="", text="x" * 5000, tokens=1, finished=True)
    append_rows(out / "answers.jsonl", [row])
"""


def test_kill_in_the_middle_then_a_second_process_goes_on(tmp_path: Path) -> None:
    """A real process is killed while it appends; its lock excludes others until then."""
    out = tmp_path / "out"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(out)], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "open\n"
    with pytest.raises(InputError, match="another process is using"):
        Stage.open(out, "eval", Config(), {})
    while not (out / "answers.jsonl").exists():
        time.sleep(0.01)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    worker.stdout.close()
    stage = Stage.open(out, "eval", Config(), {})
    assert not stage.done
    assert stage.finish().runs == 2


def test_versions_and_revision() -> None:
    versions = installed_versions()
    assert versions["sightline"] == sightline.__version__
    assert versions["torch"].startswith("2.")
    revision = git_revision()
    assert revision is None or len(revision.removesuffix("-dirty")) == 40


def test_no_revision_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the package is installed below another project's checkout."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.setattr(sightline, "__file__", str(tmp_path / "site-packages" / "sightline" / "__init__.py"))
    assert git_revision() is None


def test_revision_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(sightline, "__file__", str(tmp_path / "sightline" / "__init__.py"))
    git("init", "-q")
    assert git_revision() is None  # no commit yet
    (tmp_path / "a").write_text("1", encoding="utf-8")
    git("add", "a")
    git("commit", "-q", "-m", "a")
    git("tag", "v1")
    head = git("rev-parse", "HEAD")
    assert git_revision() == head
    (tmp_path / "a").write_text("2", encoding="utf-8")
    assert git_revision() == f"{head}-dirty"


def test_manifest_survives_the_disk(tmp_path: Path) -> None:
    manifest = Stage.open(tmp_path, "pairs", Settings(), {}).finish({"kept": 1})
    assert Manifest.model_validate_json((tmp_path / "manifest.json").read_bytes()) == manifest


CPU = Computed(device="cpu", device_name="A CPU", dtype="float32", autocast=False)
CARD = Computed(device="cuda", device_name="A card", dtype="bfloat16", autocast=True)


def test_a_stage_has_what_passes_were_computed_in_while_it_was_open(tmp_path: Path) -> None:
    """Each record is written once and at once, survives a resume, and none is added after the end."""
    record_computed(CARD)  # before: none of this stage's
    stage = Stage.open(tmp_path / "out", "pairs", Settings(), {})
    assert read_manifest(tmp_path / "out").computed == ()
    for record in (CPU, CPU):
        record_computed(record)
    assert read_manifest(tmp_path / "out").computed == (CPU,) and not read_manifest(tmp_path / "out").complete
    del stage  # killed; another machine goes on
    again = Stage.open(tmp_path / "out", "pairs", Settings(), {})
    other = Stage.open(tmp_path / "other", "pairs", Settings(), {})
    record_computed(CARD)
    other.finish()
    record_computed(CPU)
    again.finish(counts={"pairs": 1})
    record_computed(CPU.model_copy(update={"dtype": "float16"}))
    done = read_manifest(tmp_path / "out")
    assert done.computed == (CPU, CARD) and done.runs == 2 and done.complete and done.counts == {"pairs": 1}
    assert read_manifest(tmp_path / "other").computed == (CARD,)
    assert done.key == read_manifest(tmp_path / "other").key  # where it was computed makes no other run


def test_a_manifest_of_before_there_were_such_records_is_read(tmp_path: Path) -> None:
    Stage.open(tmp_path / "out", "pairs", Settings(), {}).finish()
    path = tmp_path / "out/manifest.json"
    old = {key: value for key, value in json.loads(path.read_text()).items() if key != "computed"}
    path.write_text(json.dumps(old))
    assert read_manifest(tmp_path / "out").computed == ()
    assert Stage.open(tmp_path / "out", "pairs", Settings(), {}).done
