"""`sightline eval` on a judged benchmark: a real tiny model answers, and a server on loopback grades, now or later."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.cli import app
from sightline.evals.directory import read_result
from sightline.records.hashing import hash_file
from sightline.records.manifest import read_manifest
from tests.evals.benches.official_files import hallusion_rows, write_json
from tests.evals.judging.folders import mmvet_folder
from tests.judges.local_server import say, serving
from tests.models.tiny import save_tiny_llava


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("model"))


def hallusion_data(folder: Path) -> Path:
    rows = hallusion_rows(("VS", "0", "0", "0", "0", "1"), ("VS", "0", "0", "1", "0", "0"))  # nothing is shown
    write_json(folder / "HallusionBench.json", rows)
    return folder


def test_answers_come_first_and_verdicts_with_a_judge(model: Path, tmp_path: Path) -> None:
    data, out, prompt = hallusion_data(tmp_path / "data"), tmp_path / "out", tmp_path / "prompt.txt"
    prompt.write_text("Correct?\nAnswer: {answer}\nVerdict:")
    with serving(lambda body, number: say("correct" if number == 0 else "incorrect")) as (url, heard):
        judge = tmp_path / "judge.yaml"
        judge.write_text(f"server: {{base_url: '{url}', model: m, concurrency: 1}}\nprompt: {prompt}\n")
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
        judged_texts = [text.split("Answer: ")[1].split("\nVerdict:")[0] for text in heard.texts()]
    result = read_result(out, "hallusionbench")
    assert sorted(judged_texts) == sorted(answer.text for answer in result.answers)
    assert (result.estimates["aAcc"].value, result.estimates["aAcc"].n) == (0.5, 2)
    assert [score.details["by"] for score in result.scores] == ["judge", "judge"]
    assert not [remark for remark in result.remarks if "judge" in remark]
    manifest = read_manifest(out)
    assert manifest.config["judge"]["server"]["model"] == "m"
    assert manifest.inputs["judge_prompt"] == hash_file(prompt)
    prompt.write_text("Right?\nAnswer: {answer}\nVerdict:")  # the same path, another judge
    done = CliRunner().invoke(app, list(map(str, command)))
    assert done.exit_code == 2 and "holds another run (input changed: judge_prompt)" in done.stderr


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
    assert result.remarks[0] in done.output.replace("\n", " ")
    assert "judge_prompt" not in read_manifest(out).inputs
    total = result.estimates["total"]
    assert (total.value, total.n, total.unscored) == (None, 0, 1)
    assert result.answers[0].tokens is not None and result.answers[0].tokens <= 24
    # The answers that were kept are graded later, without the model.
    with serving(lambda body, number: say("0.7")) as (url, _):
        command = ["score", "mm-vet", "--answers", out / "mm-vet/answers.jsonl", "--data", data, "--limit", 1, "--json"]
        command += ["--set", f"judge.server.base_url={url}", "--set", "judge.server.model=m"]
        done = CliRunner().invoke(app, list(map(str, command)))
    assert json.loads(done.stdout)["total"]["value"] == 0.7
