"""`sightline eval` on a judged benchmark: a real tiny model answers, and a server on loopback grades, now or later."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.cli import app
from sightline.evals.directory import read_result
from tests.evals.benches.official_files import hallusion_rows, write_json
from tests.evals.judging.folders import mmvet_folder
from tests.models.tiny import save_tiny_llava
from tests.pairs.judges.local_server import say, serving


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("model"))


def hallusion_data(folder: Path) -> Path:
    rows = hallusion_rows(("VS", "0", "0", "0", "0", "1"), ("VS", "0", "0", "1", "0", "0"))  # nothing is shown
    write_json(folder / "HallusionBench.json", rows)
    return folder


def test_answers_come_first_and_verdicts_with_a_judge(model: Path, tmp_path: Path) -> None:
    data, out = hallusion_data(tmp_path / "data"), tmp_path / "out"
    with serving(lambda body, number: say("correct" if number == 0 else "incorrect")) as (url, heard):
        judge = tmp_path / "judge.yaml"
        judge.write_text(f"server: {{base_url: '{url}', model: m, concurrency: 1}}\n")
        command = [
            "eval",
            "--model",
            model,
            "--bench",
            "hallusionbench",
            "--data",
            data,
            "--out",
            out,
            "--judge",
            judge,
        ]
        done = CliRunner().invoke(app, list(map(str, command)))
        assert done.exit_code == 0, done.output
        said = [text.split("Answer: ")[1].split("\nVerdict:")[0] for text in heard.texts()]
    result = read_result(out, "hallusionbench")
    assert sorted(said) == sorted(answer.text for answer in result.answers)
    assert (result.estimates["aAcc"].value, result.estimates["aAcc"].n) == (0.5, 2)
    assert [score.details["by"] for score in result.scores] == ["judge", "judge"]
    assert json.loads((out / "manifest.json").read_text())["config"]["judge"]["server"]["model"] == "m"


def test_without_a_judge_one_line_says_how_to_score(model: Path, tmp_path: Path) -> None:
    data, out = mmvet_folder(tmp_path / "data"), tmp_path / "out"
    for name in ("v1_0", "v1_1", "v1_3"):
        path = data / f"images/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), "teal").save(path)
    command = ["eval", "--model", model, "--bench", "mm-vet", "--data", data, "--out", out, "--limit", 1]
    command += ["--set", "max_new_tokens=24"]
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 0, done.output
    assert "note: mm-vet is graded by a judge and unscored without one; run `sightline score mm-vet" in done.output
    result = read_result(out, "mm-vet")
    made = result.estimates["total"]
    assert (made.value, made.n, made.unscored) == (None, 0, 1)
    assert result.answers[0].tokens is not None and result.answers[0].tokens <= 24
    # The answers that were kept are graded later, without the model.
    with serving(lambda body, number: say("0.7")) as (url, _):
        command = ["score", "mm-vet", "--answers", out / "mm-vet/answers.jsonl", "--data", data, "--limit", 1, "--json"]
        command += ["--set", f"judge.server.base_url={url}", "--set", "judge.server.model=m"]
        done = CliRunner().invoke(app, list(map(str, command)))
    assert json.loads(done.stdout)["total"]["value"] == 0.7
