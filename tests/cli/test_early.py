"""A misspelled key and a path that is not there are answered before torch is imported, from outlines of configs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sightline
from sightline.cli import early
from sightline.config import Config
from sightline.config.loading import check_keys
from sightline.config.problems import Outline, build_outline
from sightline.errors import InputError
from sightline.lab import BASE
from sightline.train.config import TrainConfig

ROOT = Path(__file__).parents[2]
OUTLINES = json.loads(early.OUTLINES.read_text(encoding="utf-8"))
CODE = "import sys\nfrom sightline.cli import main\ntry:\n    main()\nfinally:\n    print('torch' in sys.modules)"


def test_the_outlines_are_those_of_the_configs() -> None:
    assert early.outlines() == OUTLINES, "a config has changed: run `python -m sightline.cli.early`"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--model", BASE, "--set", "optm.lr=1"], "unknown key 'optm'; did you mean 'optim'?"),
        (["train", "--model", BASE, "--set", "optim.lrr=1"], "unknown key 'optim.lrr'; did you mean 'optim.lr'?"),
        (["train", "--model", "nowhere"], "model nowhere does not exist"),
        (["train", "--model", BASE, "--pairs", "nowhere"], "pairs nowhere does not exist"),
        (["train", "--model", BASE, "--config", "nowhere.yaml"], "config nowhere.yaml does not exist"),
        (["train", "--model", BASE, "--set", "optim.lr=!!int x"], "'x' is not a valid int"),
        (["pairs", "bdhs", "--samples", BASE, "--set", "roh=1"], "unknown key 'roh'; did you mean 'rho'?"),
        (["pairs", "corrupted", "--samples", "nowhere"], "samples nowhere does not exist"),
        (["pairs", "from-feedback", "nowhere"], "log nowhere does not exist"),
        (["curate", "nowhere"], "samples nowhere does not exist"),
        (["curate", BASE, "--set", "question=1"], "unknown key 'question'; did you mean 'questions'?"),
        (["compose", "--set", "merg=x"], "unknown key 'merg'; did you mean 'merge'?"),
        (["chat", BASE, "--set", "blnd=true"], "unknown key 'blnd'; did you mean 'blind'?"),
        (["export", "model", "nowhere"], "model nowhere does not exist"),
        (["export", "model", BASE, "--set", "wights=int8"], "unknown key 'wights'; did you mean 'weights'?"),
        (["check", "nowhere"], "dataset nowhere does not exist"),
        (["eval", "--model", "nowhere", "--bench", "lab-vqa"], "model nowhere does not exist"),
        (["eval", "--model", BASE, "--bench", "lab-vqa", "--adapter", "nowhere"], "adapter nowhere does not exist"),
        (["lab", "train-base", "--set", "sed=1"], "unknown key 'sed'; did you mean 'seed'?"),
    ],
    ids=lambda value: " ".join(map(str, value))[-40:] if isinstance(value, list) else "",
)
def test_mistakes_are_answered_without_torch(words: list[object], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, *map(str, words), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert message in done.stderr and done.stderr.startswith("error: "), done.stderr
    assert (done.stdout.splitlines()[-1], done.returncode) == ("False", 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["-1", "4294967296", "99999999999999999999", "x"])
@pytest.mark.parametrize("command", ["train", "pairs bdhs", "eval", "check", "curate", "compose", "score"])
def test_seeds_are_checked_at_the_command_line(command: str, option: str) -> None:
    from typer.testing import CliRunner

    from sightline.cli import app

    result = CliRunner().invoke(app, [*command.split(), "--seed", option])
    assert result.exit_code == 2 and "Invalid value for '--seed'" in result.output


def test_a_key_is_refused_as_the_config_would() -> None:
    outline = build_outline(TrainConfig)
    with pytest.raises(InputError, match=r"^override 'optm\.lr=1': unknown key 'optm'; did you mean 'optim'\?$"):
        check_keys(outline, None, ["optm.lr=1"])
    for given in (["loss={name: dpo, anything: 1}"], ["source={name: online, judge: {name: oracle}}"], ["rl=null"]):
        check_keys(outline, None, given)


def test_lists_mappings_and_sections_that_hold_themselves() -> None:
    outline = Outline(("a", "a.b", "c", "d", "d.e"), frozenset({"c"}))
    assert list(outline.unknown({"a": [{"b": 1}, {"x": 1}], "c": {"y": 1}, "d": 3, "z": {"b": 1}})) == [
        ("a", 1, "x"),
        ("z",),
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "sightline/lab/configs").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_configs_have_known_keys(path: Path) -> None:
    """Each belongs to some command; where one of these has all of its keys the outline agrees."""
    from pydantic import ValidationError

    from sightline.builders.registry import BUILDERS, get_builder
    from sightline.config.loading import read_yaml

    data = read_yaml(path)
    builders = {f"pairs {name}": get_builder(name).config for name in BUILDERS}
    models: dict[str, type[Config]] = {"train": TrainConfig, **builders}
    for name, model in models.items():
        try:
            model.model_validate(data)
        except ValidationError:
            continue
        found = OUTLINES[name]
        assert list(Outline(tuple(found["known"]), frozenset(found["opaque"])).unknown(data)) == []


def test_the_package_ships_the_outlines() -> None:
    assert early.OUTLINES.is_relative_to(Path(sightline.__file__).parent)
    assert '"sightline.cli" = ["*.json"]' in (ROOT / "pyproject.toml").read_text()
