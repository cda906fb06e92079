"""Fetching from the hub's disk cache (HF_HUB_OFFLINE), and a study that starts with a fetch."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.hub import FetchConfig, fetch
from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.records import read_manifest
from sightline.study.config import StudyConfig
from sightline.study.execute import command_words, execute_job
from sightline.study.plan import plan_study
from sightline.study.runner import job_contexts
from tests.study.test_study_plan import STUDY

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache with a data set in POVID's published layout, of six rows, and a model with a pickle beside it."""
    cache = tmp_path / "cache"
    for name in ("datasets--owner--povid", "models--owner--small"):
        (cache / name / "refs").mkdir(parents=True)
        (cache / name / "refs/main").write_text(COMMIT)
        (cache / name / "snapshots" / COMMIT).mkdir(parents=True)
    rows = [
        {
            "id": str(number),
            "image": "red.png",
            "conversations": _turns(f"A red square, number {number}."),
            "rejected_conversations": _turns(f"A dog, number {number}."),
        }
        for number in range(6)
    ]
    files = cache / "datasets--owner--povid/snapshots" / COMMIT
    (files / "povid.json").write_text(json.dumps(rows))
    Image.new("RGB", (8, 8), "red").save(files / "red.png")
    model = cache / "models--owner--small/snapshots" / COMMIT
    (model / "config.json").write_text("{}")
    (model / ".hidden").write_text("no")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return cache


def _turns(answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": "<image>\nDescribe it."}, {"from": "gpt", "value": answer}]


def test_a_directory_is_filled_once(hub: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    words = ["fetch", "model", "owner/small", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "1 files" in done.output, done.output
    assert {path.name for path in out.iterdir()} == {"config.json", "manifest.json"}
    assert COMMIT in read_manifest(out).warnings[0]
    before = (out / "manifest.json").stat().st_mtime_ns
    assert CliRunner().invoke(app, words).exit_code == 0
    assert (out / "manifest.json").stat().st_mtime_ns == before


def test_what_is_not_there_is_one_sentence_and_claims_nothing(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dataset owner/none cannot be fetched"):
        fetch(FetchConfig(type="dataset", hub="owner/none"), tmp_path / "none")
    assert not (tmp_path / "none").exists()
    wrong = CliRunner().invoke(app, ["fetch", "model", "small", "--out", str(tmp_path / "none")])
    assert wrong.exit_code == 2 and wrong.output.count("\n") == 1


def test_a_study_fetches_reads_and_takes(hub: Path, tmp_path: Path) -> None:
    """From the hub's name to four of the six published pairs, drawn by seed; each command by hand finds it done."""
    pairs = {
        "povid": {"files": {"layout": "povid", "hub": "owner/povid", "rows": 6}},
        "few": {"take": {"of": "povid", "count": 4, "random_seed": 1}},
    }
    plan = plan_study(StudyConfig.model_validate({**STUDY, "pairs": pairs, "arms": {"dpo": {"pairs": "few"}}}))
    jobs = job_contexts(plan, tmp_path / "out")
    wanted = {key: job for key, job in jobs.items() if job.piece.kind in ("fetch", "pairs")}
    assert [job.piece.kind for job in wanted.values()] == ["fetch", "pairs", "pairs"]
    for job in wanted.values():
        assert execute_job(job).complete
    last = list(wanted.values())[-1]
    taken = list(read_pairs(last.out))
    assert len(taken) == 4 and all(pair.chosen.startswith("A red square") for pair in taken)
    for job in wanted.values():
        stamp = (job.out / "manifest.json").stat().st_mtime_ns
        by_hand = CliRunner().invoke(app, command_words(job))
        assert by_hand.exit_code == 0, by_hand.output
        assert (job.out / "manifest.json").stat().st_mtime_ns == stamp
