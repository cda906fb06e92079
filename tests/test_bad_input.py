"""Every command on invalid input: exit code 2, one sentence on stderr, no traceback, nothing lost.

Commands run in this process for speed; one runs in a subprocess. The tests of the stages cover the errors in detail.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sightline.cli import app
from tests.models.tiny import save_tiny_llava


def call(*words: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time and bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def assert_refused(result: Result, sentence: str) -> None:
    """Code 2 and exactly one line on stderr, which says this."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    assert sentence in result.stderr
    assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output directories of the commands samples, pairs, train and eval, with a model."""
    root = tmp_path_factory.mktemp("good")
    save_tiny_llava(root / "model")
    commands = (
        ("lab", "scenes", "--count", 3, "--out", root / "samples", "--set", "described=1"),
        ("pairs", "bdhs", "--model", root / "model", "--samples", root / "samples", "--out", root / "pairs", *PAIRS),
        ("train", "--model", root / "model", "--pairs", root / "pairs", "--out", root / "train", *TRAIN),
        ("eval", "--model", root / "model", "--out", root / "eval", *EVAL),
    )
    for words in commands:
        done = call(*words)
        assert done.exit_code == 0, done.output
    return root


PAIRS = ("--set", "rho=0.9", "--set", "tries=1", "--set", "max_new_tokens=4")
TRAIN = ("--set", "loss={name: dpo, beta: 0.1}", "--set", "optim.lr=1e-4", "--set", "max_steps=1")
EVAL = ("--bench", "lab-vqa", "--limit", "2", "--set", "resamples=100")


@pytest.fixture
def place(good: Path, tmp_path: Path) -> Path:
    """A copy of `good` to spoil; what the test leaves there must survive the command that it refuses."""
    return Path(shutil.copytree(good, tmp_path / "place"))


def words_of(command: str, place: Path, out: Path) -> tuple[object, ...]:
    """A command that would succeed in `place`."""
    model = place / "model"
    return {
        "lab scenes": ("lab", "scenes", "--count", 3, "--out", out),
        "lab train-base": ("lab", "train-base", "--out", out),
        "lab measure": ("lab", "measure", "--model", model, "--count", 10, "--out", out),
        "pairs bdhs": ("pairs", "bdhs", "--model", model, "--samples", place / "samples", "--out", out, *PAIRS),
        "train": ("train", "--model", model, "--pairs", place / "pairs", "--out", out, *TRAIN),
        "eval": ("eval", "--model", model, "--data", place / "eval/data", "--out", out, *EVAL),
        "report": ("report", "--base", place / "eval", "--aligned", place / "eval", "--out", out),
        "demo": ("demo", "--out", out),
    }[command]


def assert_nothing_lost(place: Path, command: str, sentence: str, *more: object) -> None:
    """The command is refused, `place` stays as it is, and the output directory is still free."""
    before, out = snapshot(place), place.parent / "out"
    assert_refused(call(*words_of(command, place, out), *more), sentence)
    assert snapshot(place) == before
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "override", "nearest"),
    [
        ("lab scenes", "describd=0.5", "did you mean 'described'?"),
        ("lab scenes", "world.small_=0.5", "did you mean 'world.small'?"),
        ("lab train-base", "align_step=1", "did you mean 'align_steps'?"),
        ("pairs bdhs", "treshold=0.9", "did you mean 'threshold'?"),
        ("train", "optim.clip=1", "did you mean 'optim.clip_norm'?"),
        ("eval", "resample=100", "did you mean 'resamples'?"),
    ],
)
def test_an_unknown_key(place: Path, command: str, override: str, nearest: str) -> None:
    assert_nothing_lost(place, command, nearest, "--set", override)
    key, _, value = override.partition("=")
    nested = {key.partition(".")[0]: {key.partition(".")[2]: value}} if "." in key else {key: value}
    config = place / "config.yaml"
    config.write_text(json.dumps(nested))
    assert_nothing_lost(place, command, nearest, "--config", config)


@pytest.mark.parametrize("command", ["lab scenes", "lab train-base", "pairs bdhs", "train", "eval"])
def test_a_config_that_is_not_there_or_no_mapping(place: Path, command: str) -> None:
    assert_nothing_lost(place, command, "nowhere.yaml does not exist", "--config", place / "nowhere.yaml")
    (place / "list.yaml").write_text("- 1\n")
    assert_nothing_lost(place, command, "write keys and values", "--config", place / "list.yaml")


@pytest.mark.parametrize(
    ("command", "missing"),
    [
        ("lab measure", "model"),
        ("pairs bdhs", "model"),
        ("pairs bdhs", "samples"),
        ("train", "model"),
        ("train", "pairs"),
        ("eval", "model"),
        ("report", "eval"),
    ],
)
def test_a_directory_that_is_not_there(place: Path, command: str, missing: str) -> None:
    shutil.rmtree(place / missing)
    assert_nothing_lost(place, command, str(place / missing))


@pytest.mark.parametrize("command", ["lab measure", "pairs bdhs", "train", "eval"])
def test_a_model_without_a_processor(place: Path, command: str) -> None:
    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"):
        (place / "model" / name).unlink(missing_ok=True)
    assert_nothing_lost(place, command, "processor")


def _first_image(folder: Path) -> Path:
    return min(folder.glob("images/*.png"))


IMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "does not exist"),
    "empty": (lambda path: path.write_bytes(b""), "is empty (0 bytes)"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:300]), "is truncated or damaged"),
    "text": (lambda path: path.write_text("no image at all\n"), "is not an image"),
}


@pytest.mark.parametrize("damage", IMAGES)
@pytest.mark.parametrize(("command", "folder"), [("pairs bdhs", "samples"), ("train", "pairs")])
def test_a_damaged_image(place: Path, command: str, folder: str, damage: str) -> None:
    spoil, sentence = IMAGES[damage]
    image = _first_image(place / folder)
    spoil(image)
    assert_nothing_lost(place, command, sentence)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_a_damaged_image_of_a_benchmark(place: Path, damage: str) -> None:
    spoil, sentence = IMAGES[damage]
    spoil(_first_image(place / "eval/data"))
    before = snapshot(place)
    assert_refused(call(*words_of("eval", place, place.parent / "out")), sentence)
    assert snapshot(place) == before


def _edited(path: Path, **columns: object) -> None:
    """Change columns of the last row of a JSONL file."""
    *lines, last = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines, json.dumps({**json.loads(last), **columns})]) + "\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("command", "file", "columns", "sentence"),
    [
        (
            "pairs bdhs",
            "samples/samples.jsonl",
            {"prompt": " "},
            "line 3 (id 'preference-000002'): the prompt is empty",
        ),
        ("pairs bdhs", "samples/samples.jsonl", {"reference": ""}, "line 3 (id 'preference-000002'): the reference is"),
        ("pairs bdhs", "samples/samples.jsonl", {"id": "preference-000000"}, "this id occurs twice"),
        ("pairs bdhs", "samples/samples.jsonl", {"images": ["../x.png"]}, "does not stay in"),
        ("pairs bdhs", "samples/samples.jsonl", {"refrence": "A cup."}, "line 3: unknown key 'refrence'"),
        ("train", "pairs/pairs.jsonl", {"prompt": ""}, "'prompt' is empty"),
        ("train", "pairs/pairs.jsonl", {"chosen": "\n"}, "'chosen' is empty"),
        ("train", "pairs/pairs.jsonl", {"chosn": "A cup."}, "unknown key 'chosn'"),
    ],
)
def test_a_bad_row(place: Path, command: str, file: str, columns: dict[str, object], sentence: str) -> None:
    _edited(place / file, **columns)
    assert_nothing_lost(place, command, sentence)


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("pairs bdhs", "samples/samples.jsonl"),
        ("train", "pairs/pairs.jsonl"),
        ("report", "eval/lab-vqa/scores.jsonl"),
    ],
)
@pytest.mark.parametrize("row", ["not JSON", '{"id": "torn', "[1, 2]", "\x00\x01"])
def test_a_row_that_is_no_json_object(place: Path, command: str, file: str, row: str) -> None:
    with (place / file).open("a", encoding="utf-8") as stream:
        stream.write(row + "\n")
    lines = len((place / file).read_bytes().splitlines())
    assert_nothing_lost(place, command, f"{Path(file).name} line {lines}")


@pytest.mark.parametrize(
    ("command", "out", "more", "difference"),
    [
        ("lab scenes", "samples", ("--split", "test"), "holds another run"),
        ("lab scenes", "pairs", (), "stage there: 'pairs bdhs', here: 'lab scenes'"),
        ("lab train-base", "pairs", (), "holds other files"),
        ("lab measure", "pairs", (), "README.md"),
        ("pairs bdhs", "pairs", ("--set", "rho=0.5"), "rho there: 0.9, here: 0.5"),
        ("pairs bdhs", "pairs", ("--seed", "3"), "seed there: 0, here: 3"),
        ("pairs bdhs", "model", (), "holds other files"),
        ("train", "train", ("--set", "max_steps=2"), "max_steps there: 1, here: 2"),
        ("train", "pairs", (), "stage there: 'pairs bdhs', here: 'train'"),
        ("eval", "eval", ("--limit", "1"), "limit there: 2, here: 1"),
        ("eval", "train", (), "stage there: 'train', here: 'eval'"),
    ],
)
def test_an_output_directory_of_another_run(
    place: Path, command: str, out: str, more: tuple[str, ...], difference: str
) -> None:
    before = snapshot(place)
    assert_refused(call(*words_of(command, place, place / out), *more), difference)
    assert snapshot(place) == before


@pytest.mark.parametrize("command", ["lab scenes", "pairs bdhs", "train", "eval", "demo"])
def test_an_output_directory_that_is_a_file(place: Path, command: str) -> None:
    (place / "file").write_text("mine\n")
    before = snapshot(place)
    assert_refused(call(*words_of(command, place, place / "file")), "cannot be")
    assert snapshot(place) == before


def test_numbers_out_of_range_end_with_code_2(place: Path) -> None:
    for words in (
        (*words_of("lab scenes", place, place / "new"), "--count", 0),
        (*words_of("pairs bdhs", place, place / "new"), "--seed", -1),
        (*words_of("demo", place, place / "new"), "--pairs", 1),
        (*words_of("lab scenes", place, place / "new"), "--split", "prefrence"),
    ):
        done = call(*words)
        assert done.exit_code == 2 and "Traceback" not in done.output and not (place / "new").exists()


def test_the_real_program_says_one_sentence(place: Path) -> None:
    """In a subprocess, so that all output of libraries and the interpreter is seen."""
    spoil, sentence = IMAGES["truncated"]
    spoil(_first_image(place / "samples"))
    words = words_of("pairs bdhs", place, place.parent / "out")
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "sightline", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and sentence in done.stderr
