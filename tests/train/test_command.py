"""`sightline train` from the command line: options reach the stage; errors exit with code 2 and one sentence."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.records.manifest import read_manifest
from sightline.records.rows import Pair
from sightline.train.log import read_log
from tests.train.test_run import write_pairs


@pytest.fixture
def pairs_dir(pairs: list[Pair], tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", pairs)


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "train.yaml"
    path.write_text("loss: {name: dpo, beta: 0.5}\noptim: {lr: 1e-3}\nbatch_size: 3\nepochs: 1\ndevice: cpu\n")
    return path


def command(model: Path, pairs: Path, out: Path, *more: str | Path) -> Result:
    arguments = ["train", "--model", model, "--pairs", pairs, "--out", out, *more]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_options_reach_the_stage(model_dir: Path, pairs_dir: Path, config_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--config", config_file, "--set", "loss.beta=0.25", "--set", "optim.lr=2e-3", "--seed", "7")
    result = command(model_dir, pairs_dir, out, *more)
    assert result.exit_code == 0, result.output
    assert str(out / "adapter") in result.output.replace("\n", "")
    manifest = read_manifest(out)
    assert manifest.seed == 7 and manifest.config["batch_size"] == 3
    assert manifest.config["loss"] == {"name": "dpo", "beta": 0.25} and manifest.config["optim"]["lr"] == 2e-3
    rows = list(read_log(out / "log.jsonl"))
    assert len(rows) == 2 and max(row.lr for row in rows) == 2e-3


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["loss={name: dpo}"], "loss.beta is missing"),
        (["loss.beta=0"], "loss.beta is 0"),
        (["loss.beta=-1"], "loss.beta is -1"),
        (["batch_sise=2"], "did you mean 'batch_size'?"),
        (["epochs=0"], "epochs"),
        (
            ["loss={name: dpo-averaged, beta: 0.1, gamma: 0.5}", "source={name: bdhs, rho: 0.9}"],
            "have no second rejected answer, which dpo-averaged needs",
        ),
    ],
)
def test_a_wrong_config_ends_with_code_two(
    model_dir: Path, pairs_dir: Path, config_file: Path, tmp_path: Path, overrides: list[str], sentence: str
) -> None:
    sets = [part for override in overrides for part in ("--set", override)]
    result = command(model_dir, pairs_dir, tmp_path / "out", "--config", config_file, *sets)
    assert result.exit_code == 2
    assert sentence in result.stderr and "\n" not in result.stderr.strip() and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_broken_image_leaves_its_sentence_alone(
    model_dir: Path, pairs_dir: Path, config_file: Path, tmp_path: Path
) -> None:
    """It is found while the bars are up, which then go away; nothing is claimed or begun."""
    (pairs_dir / "images" / "picture-2.png").write_bytes(b"no picture")
    result = command(model_dir, pairs_dir, tmp_path / "out", "--config", config_file)
    assert result.exit_code == 2 and "picture-2.png" in result.stderr and "\n" not in result.stderr.strip()
    assert not (tmp_path / "out").exists()


def test_missing_directories_end_with_code_two(
    model_dir: Path, pairs_dir: Path, config_file: Path, tmp_path: Path
) -> None:
    for model, pairs in ((model_dir, tmp_path / "none"), (tmp_path / "none", pairs_dir)):
        result = command(model, pairs, tmp_path / "out", "--config", config_file)
        assert result.exit_code == 2 and "none" in result.stderr and "\n" not in result.stderr.strip()
        assert not (tmp_path / "out").exists()
