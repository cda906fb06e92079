"""`sightline eval` as people call it: a table, a directory, and one sentence with code 2 for what is wrong."""

import importlib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.evals.registry import BENCHMARKS
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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"--bench": "shape"}, "there is no benchmark 'shape'; did you mean 'shapes'?"),
        ({"--model": "nowhere"}, "model nowhere does not exist"),
        ({"--set": "limt=3"}, "unknown key 'limt'; did you mean 'limit'?"),
        ({"--set": "dtype=float8"}, "dtype 'float8' is unknown"),
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
    for path in {entry.factory for entry in BENCHMARKS.values()}:
        module, _, attribute = path.partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))
