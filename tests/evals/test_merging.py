"""Merged shards equal the undivided evaluation byte for byte; parts that do not fit are reported."""

from pathlib import Path

import pytest
import torch

from sightline.data.fingerprint import FINGERPRINT, compute_fingerprint, write_fingerprint
from sightline.errors import InputError
from sightline.evals.registry import BENCHMARKS
from sightline.evals.run import EvalConfig, EvalRuntime, Files, evaluate
from sightline.evals.shards import merge_evaluations
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.loading import load_vlm
from sightline.records.manifest import read_manifest
from tests.evals.shapes import SHAPES_ENTRY, ShapeBenchmark
from tests.models.tiny import save_tiny_llava

NAMES = ("shapes", "shapes-ask")
RUNTIME = EvalRuntime(batch_size=4, device="cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return save_tiny_llava(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def divided(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same evaluation whole (`whole`) and in three shards (`0`, `1`, `2`), and one with another limit."""
    folder = tmp_path_factory.mktemp("divided")
    files = Files(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        for name in NAMES:
            patch.setitem(BENCHMARKS, name, SHAPES_ENTRY)
        shards = {"whole": "0/1", "0": "0/3", "1": "1/3", "2": "2/3", "x": "1/3"}
        for name, shard in shards.items():
            limit = 4 if name == "x" else 5
            config = EvalConfig(benchmarks=NAMES, limit=limit, resamples=100, shard=shard)
            evaluate(model, folder / name, config, files=files, runtime=RUNTIME)
    return folder


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setitem(BENCHMARKS, name, SHAPES_ENTRY)


def test_shards_make_the_whole(divided: Path, tmp_path: Path) -> None:
    parts = [divided / name for name in ("2", "0", "1")]
    assert [read_manifest(part).counts["shapes-ask"] for part in parts] == [4, 3, 3]
    manifest = merge_evaluations(parts, divided / "merged", Files(divided / "data"))
    assert manifest.complete and manifest.counts == {"shapes": 5, "shapes-ask": 10}
    for name in NAMES:
        for file in ("samples.jsonl", "answers.jsonl", "scores.jsonl", "metrics.json", "estimates.json"):
            assert (divided / "merged" / name / file).read_bytes() == (divided / "whole" / name / file).read_bytes()
    assert merge_evaluations(parts, divided / "merged", Files(divided / "data")) == manifest


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (("0", "1"), "shard 2/3 is missing; name each of the 3 shards once"),
        (("0", "1", "2", "1"), "a shard is given twice"),
        (("0", "x", "2"), "x is of another evaluation: limit is 4, in .*0 5"),
        (("0", "whole"), "different numbers of shards"),
        (("0", "data"), "has no manifest"),
    ],
)
def test_what_is_no_division_is_named(names: tuple[str, ...], sentence: str, divided: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        merge_evaluations([divided / name for name in names], tmp_path / "out", Files(divided / "data"))
    assert not (tmp_path / "out").exists()


def test_a_leak_is_said_and_kept_in_the_manifest(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter whose training saw a picture of the benchmark."""
    train = tmp_path / "train"
    save_adapter(add_lora(load_vlm(model, device="cpu"), LoraSettings(rank=2, alpha=4.0)), train / "adapter")
    benchmark = ShapeBenchmark("shapes", tmp_path / "data", 2)
    picture = benchmark.folder / next(benchmark.samples()).images[0]
    write_fingerprint(train / FINGERPRINT, compute_fingerprint([([picture], "Which?")]))
    config = EvalConfig(benchmarks=("shapes",), limit=2, resamples=100)
    out = evaluate(
        model, tmp_path / "eval", config, adapter=train / "adapter", files=Files(tmp_path / "data"), runtime=RUNTIME
    )
    (warning,) = read_manifest(out).warnings
    assert warning.startswith("shapes: 1 of 2 pictures are in the training pairs too")
    assert "warning: shapes: 1 of 2 pictures" in " ".join(capsys.readouterr().err.split())
