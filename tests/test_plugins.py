"""Parts from outside: a package that is installed beside Sightline, and a file that `--plugin` names."""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from sightline.errors import InputError
from sightline.lab import BASE
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.losses import dpo as dpo_module
from sightline.losses.types import PairLogps
from sightline.records import Sample
from sightline.registry import OWN_PLUGINS, PLUGIN_GROUP, Entry, Registry, load_target

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


def test_an_installation_without_entry_points_is_named(tmp_path: Path) -> None:
    """Metadata from before the lab was a plugin hide it; the error says how to repair that."""
    info = tmp_path / "sightline-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sightline\nVersion: 0.1\n")
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "sightline", "eval", "--model", BASE, "--bench", "lab-chair", "--out", "x"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(root)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "there is no benchmark 'lab-chair'" in done.stderr, done.stderr
    assert "lacks Sightline's entry points lab and recipes: install it again" in done.stderr


def test_the_own_entry_points_are_those_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(project["entry-points"][PLUGIN_GROUP]) == OWN_PLUGINS


LAYOUT_AND_FAMILY = '''
import sightline as sl
from sightline.data.formats.conversations import assistant_turn, pair_drafts, parse_turn
from sightline.data.formats.layout import FileLayout, has_columns, image_sources, text_column
from sightline.models.families.base import Text


def read(columns, config):
    ask = parse_turn({"role": "user", "content": text_column(columns, "ask")}, "ask")
    good, bad = ((ask, assistant_turn(text_column(columns, name))) for name in ("good", "bad"))
    yield from pair_drafts(good, bad, image_sources(columns, "photo"))


sl.register_layout(FileLayout("duel", "ask, good, bad, photo", lambda row: has_columns(row, "ask", "good"), read))


@sl.register_family("outer_text")
class OuterText(Text):
    """A text-only family of another package."""
'''


def test_a_layout_and_a_family_of_a_plugin_are_used(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LAYOUT_AND_FAMILY, encoding="utf-8")
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    row = {"ask": "What is there?", "good": "A cup.", "bad": "A dog.", "photo": "a.png"}
    (tmp_path / "duel.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    words = ("import", "duel", tmp_path / "duel.jsonl", "--out", tmp_path / "pairs")
    imported = _run(tmp_path, "--plugin", tmp_path / "mine.py", *words)
    assert imported.returncode == 0, imported.stderr
    pair = json.loads((tmp_path / "pairs/pairs.jsonl").read_text(encoding="utf-8"))
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("What is there?", "A cup.", "A dog.")
    listed = _run(tmp_path, "--plugin", tmp_path / "mine.py", "list", "families")
    assert "outer_text" in listed.stdout, listed.stdout + listed.stderr


def test_the_examples_of_contributing_work(tmp_path: Path) -> None:
    """The plugin of the page is listed, and its built-in loss has the value that the page works out by hand."""
    page = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    plugin = re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "my_parts.py").write_text(plugin, encoding="utf-8")
    listed = _run(tmp_path, "--plugin", tmp_path / "my_parts.py", "list", "losses")
    assert "my-hinge" in listed.stdout, listed.stderr
    steps = [
        re.sub("^   ", "", block, flags=re.MULTILINE)
        for block in re.findall(r"^   ```python\n(.*?)^   ```$", page, flags=re.MULTILINE | re.DOTALL)
    ]
    names = {**vars(dpo_module)}
    exec(compile(steps[0], "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    policy, reference = (
        PairLogps(chosen=torch.tensor([better]), rejected=torch.tensor([worse]))
        for better, worse in ((-3.0, -1.5), (0.0, 0.0))
    )
    out = names["squared_hinge"](policy, reference, beta=0.5)
    assert out.loss.item() == pytest.approx(3.0625)  # h = -1.5: (1 + 0.75)^2
    (tmp_path / "shuffled.py").write_text(steps[3], encoding="utf-8")
    builder = load_file(tmp_path / "shuffled.py")
    sample = Sample(id="1", images=("a.png",), prompt="What?", reference="one two three four", cluster="1")
    results = [list(builder.build_shuffled([sample], SimpleNamespace(seed=0), builder.ShuffledConfig())) for _ in "ab"]
    assert results[0] == results[1] and len(results[0][0].pairs) == 1
    assert sorted(results[0][0].pairs[0].rejected.split()) == sorted(["one", "two", "three", "four"])


def load_file(path: Path) -> Any:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
