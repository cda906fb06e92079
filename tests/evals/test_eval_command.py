"""`sightline eval` on the command line: a table, a directory, and one sentence with exit code 2 for errors."""

import importlib
import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.evals.directory import read_result
from sightline.evals.registry import BENCHMARKS
from sightline.records.hashing import hash_file
from sightline.records.manifest import read_manifest
from tests.evals.shapes import SHAPES_ENTRY
from tests.models.tiny import save_tiny_llava


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BENCHMARKS, "shapes", SHAPES_ENTRY)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


def test_options_reach_the_evaluation(model: Path, tmp_path: Path) -> None:
    options = ("--limit", 2, "--batch-size", 2, "--seed", 5, "--set", "resamples=100", "--set", "runtime.device=cpu")
    done = call("--model", model, "--bench", "shapes", "--out", tmp_path / "out", "--data", tmp_path / "data", *options)
    assert done.exit_code == 0, done.output
    assert "hallucinating" in done.output
    manifest = read_manifest(tmp_path / "out")
    assert manifest.config["benchmarks"] == ["shapes"]
    assert (manifest.config["limit"], manifest.config["resamples"], manifest.seed) == (2, 100, 5)
    assert manifest.counts == {"shapes": 2}
    assert "runtime" not in manifest.config
    assert len(list((tmp_path / "data" / "images").iterdir())) == 2


def test_remarks_are_printed_and_kept_and_come_again_without_the_model(model: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    Image.new("RGB", (16, 16), "teal").save(data / "COCO_val2014_000000000042.jpg")
    (data / "truth.json").write_text('{"COCO_val2014_000000000042.jpg": ["dog"]}')
    options = ("--bench", "chair", "--data", data, "--set", "resamples=100", "--set", "max_new_tokens=4")
    remark = "the synonyms are our own list; for the published figures give the owners' with --synonyms"
    for _ in range(2):
        done = call("--model", model, "--out", out, *options)
        assert done.exit_code == 0, done.output
        assert f"note: chair: {remark}\n" in done.output
    assert read_result(out, "chair").remarks == (remark,)
    assert json.loads((out / "chair/remarks.json").read_text()) == [remark]
    words = tmp_path / "words.txt"
    words.write_text("dog, puppy\n")
    done = call("--model", model, "--out", tmp_path / "theirs", *options, "--synonyms", words)
    assert done.exit_code == 0 and "note:" not in done.output
    assert read_result(tmp_path / "theirs", "chair").remarks == ()
    assert read_manifest(tmp_path / "theirs").inputs["synonyms"] == hash_file(words)


def test_an_evaluation_of_an_earlier_version_has_no_remarks(model: Path, tmp_path: Path) -> None:
    options = ("--limit", 2, "--set", "resamples=100", "--data", tmp_path / "data")
    assert call("--model", model, "--bench", "shapes", "--out", tmp_path / "out", *options).exit_code == 0
    (tmp_path / "out/shapes/remarks.json").unlink()
    assert read_result(tmp_path / "out", "shapes").remarks == ()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--bench": "shape"}, "there is no benchmark 'shape'; did you mean 'shapes'?"),
        ({"--model": "nowhere"}, "model nowhere does not exist"),
        ({"--set": "limt=3"}, "unknown key 'limt'; did you mean 'limit'?"),
        ({"--set": "dtype=float8"}, "dtype = 'float8': input should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        ({"--adapter": "nowhere"}, "nowhere"),
    ],
)
def test_a_mistake_is_one_sentence_and_claims_nothing(
    change: dict[str, str], sentence: str, model: Path, tmp_path: Path
) -> None:
    options = {"--model": str(model), "--bench": "shapes", "--out": str(tmp_path / "out"), **change}
    done = call(*(part for option in options.items() for part in option))
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_processor_claims_nothing(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((model / "config.json").read_bytes())
    done = call("--model", bare, "--bench", "shapes", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "processor" in done.stderr
    assert not (tmp_path / "out").exists()


def test_no_benchmark_says_how_to_name_one(model: Path, tmp_path: Path) -> None:
    done = call("--model", model, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "'benchmarks' is missing" in done.stderr


def test_every_registered_name_resolves() -> None:
    for path in {entry.target for entry in BENCHMARKS.values()}:
        module, _, attribute = path.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))
