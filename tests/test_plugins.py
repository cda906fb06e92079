"""Parts from outside: a package that is installed beside Sightline, and a file that `--plugin` names."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.lab import BASE
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.registry import Entry, Registry, load_target

PARTS = '''
from collections.abc import Iterator

import torch
from PIL import Image

import sightline as sl
from sightline.builders.builder import BuildResult, make_pair, require_reference
from sightline.config import Config
from sightline.evals.yes_no import YES_NO_METRICS, score_yes_no
from sightline.losses.table import Parameter
from sightline.losses.types import LossOut, Requirement
from sightline.records import Sample


@sl.register_loss("outer-hinge", parameters=[Parameter("beta")], needs=[Requirement.REFERENCE])
def outer_hinge(policy, reference, *, beta):
    """A hinge from another package."""
    margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
    return LossOut(torch.relu(1 - beta * margin), beta * (policy.chosen - reference.chosen),
                   beta * (policy.rejected - reference.rejected))


class ReversedConfig(Config):
    """How the words are put."""

    words: int = 3


@sl.register_builder("reversed", config=ReversedConfig, help="The reference's first words backwards.",
                     needs=("reference",), most=1)
def build_reversed(samples, context, config) -> Iterator[BuildResult]:
    for sample in samples:
        reference = require_reference(sample)
        worse = " ".join(reversed(reference.split()[: config.words]))
        yield BuildResult(sample_id=sample.id,
                          pairs=(make_pair(sample, "reversed", reference, worse, provenance={}),))


@sl.register_benchmark("outer-blank", help="Is there a cup in an empty picture?")
class Blank:
    """Two empty pictures."""

    max_new_tokens = 4
    metrics = YES_NO_METRICS

    def __init__(self, name, setting):
        self.name, self.folder = name, setting.folder

    def samples(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        for number in range(2):
            Image.new("RGB", (64, 64), "white").save(self.folder / f"{number}.png")
            yield Sample(id=str(number), images=(f"{number}.png",), prompt="Is there a cup in the image?",
                         cluster=str(number))

    def score(self, sample, answer):
        return score_yes_no(answer, truth=False)
'''


def _package(folder: Path) -> Path:
    """A package with an entry point, laid out as pip lays it."""
    info = folder / "outer_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "outer_parts.py").write_text(PARTS, encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outer-parts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sightline.plugins]\nouter = outer_parts\n")
    return folder


def _run(folder: Path, *words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")]), str(Path.cwd())])
    return subprocess.run(
        [sys.executable, "-m", "sightline", *map(str, words)],
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "120", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_parts_of_another_package_work_in_commands(tmp_path: Path) -> None:
    outer = _package(tmp_path / "site")
    write_scenes(ScenesConfig(), "preference", 4, tmp_path / "samples")
    listed = _run(outer, "list", "builders")
    assert "reversed" in listed.stdout and "backwards" in listed.stdout, listed.stderr
    data = ("--samples", tmp_path / "samples", "--out", tmp_path / "pairs")
    built = _run(outer, "pairs", "reversed", *data, "--set", "words=2")
    assert built.returncode == 0, built.stderr
    rows = [json.loads(line) for line in (tmp_path / "pairs/pairs.jsonl").read_text().splitlines()]
    assert rows and all(row["rejected"] == " ".join(reversed(row["chosen"].split()[:2])) for row in rows)
    settings = ("loss.name=outer-hinge", "loss.beta=0.1", "optim.lr=1e-4", "max_steps=1")
    words = ("train", "--model", BASE, "--pairs", tmp_path / "pairs", "--out", tmp_path / "run")
    trained = _run(outer, *words, *(word for setting in settings for word in ("--set", setting)))
    assert trained.returncode == 0, trained.stderr
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[0]["loss"] == pytest.approx(1.0, abs=1e-6)  # the policy is the reference: no margin yet
    measured = _run(outer, "eval", "--model", BASE, "--bench", "outer-blank", "--out", tmp_path / "eval")
    assert measured.returncode == 0 and "accuracy" in measured.stdout, measured.stderr


def test_a_file_is_a_plugin_and_a_missing_one_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PARTS, encoding="utf-8")
    listed = _run(tmp_path, "--plugin", tmp_path / "mine.py", "list", "losses")
    assert "outer-hinge" in listed.stdout and "A hinge from another package" in listed.stdout, listed.stderr
    by_variable = _run(tmp_path, "list", "builders", SIGHTLINE_PLUGINS=str(tmp_path / "mine.py"))
    assert "reversed" in by_variable.stdout
    missing = _run(tmp_path, "--plugin", tmp_path / "none.py", "list", "losses")
    assert missing.returncode == 2 and missing.stderr.startswith("error: plugin ") and missing.stderr.count("\n") == 1
    (tmp_path / "bad.py").write_text("1 / 0\n")
    failing = _run(tmp_path, "--plugin", tmp_path / "bad.py", "list", "losses")
    assert failing.returncode == 2 and "ZeroDivisionError" in failing.stderr and "Traceback" not in failing.stderr


def test_a_registry_names_the_nearest_and_refuses_two_of_one_name() -> None:
    entries = {"shape": Entry("math:pi", "Round.")}
    registry: Registry[Entry] = Registry("thing", "sightline.things", load_target, entries)
    assert registry.load("shape") == pytest.approx(3.14159265)
    with pytest.raises(InputError, match="there is no thing 'shaep'; did you mean 'shape'"):
        registry.entry("shaep")
    with pytest.raises(InputError, match="two things called 'shape'"):
        registry.add("shape", Entry("math:e"))
    registry.add("absent", Entry("no_such_package:x"))
    with pytest.raises(InputError, match=r"no_such_package:x cannot be imported .*install it"):
        registry.load("absent")
