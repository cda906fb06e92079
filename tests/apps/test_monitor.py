"""The watch over logs: calm is calm, a drift is named, reading in parts is reading whole, hostile text stays text."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sightline.apps.monitor.measures import MEASURES, vocabulary
from sightline.apps.monitor.page import evidence_text
from sightline.cli import app
from sightline.data.request_log import RequestLog, is_refusal, plain_yes, read_log, text_stats
from sightline.lab.oracle import score
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.requests import JudgeInput, Prefix
from sightline.records import Sample, read_rows
from sightline.records.ratings import BUCKETS, LoggedPicture, LoggedRequest
from sightline.records.store import append_rows

USUAL = ("Is there a cup on the table?", "Describe the picture.", "How many cows are there?", "What color is the boat?")
OTHER = ("Write a poem about taxes.", "Translate the menu into French, please.", "Which stocks should I buy today?")
ANSWERS = ("Yes, there is a cup.", "No, there is none.", "A red cup and a blue plate stand on the table.", "Two.")


def row(
    number: int, prompt: str, answer: str, *, brightness: float = 0.5, salt: str = "", **more: Any
) -> LoggedRequest:
    picture = LoggedPicture(
        sha256=hashlib.sha256(f"{salt}{number}".encode()).hexdigest(),
        width=96,
        height=96,
        brightness=brightness,
        contrast=0.2,
        saturation=0.4,
        detail=0.05,
    )
    values = {
        "id": hashlib.sha256(f"{salt}/{number}".encode()).hexdigest()[:32],
        "time": f"2026-11-{1 + number // 100:02d}T00:00:00+00:00",
        "model": "m",
        "images": (picture,),
        "prompt": prompt,
        "answer": answer,
        "prompt_stats": text_stats(prompt),
        "answer_stats": text_stats(answer),
        "yes": plain_yes(answer),
        "refused": is_refusal(answer),
        "finished": True,
    }
    return LoggedRequest.model_validate({**values, **more})


def usual(count: int, seed: int, salt: str) -> list[LoggedRequest]:
    rng = np.random.default_rng(seed)
    return [
        row(n, USUAL[rng.integers(4)], ANSWERS[rng.integers(4)], brightness=float(rng.uniform(0.3, 0.7)), salt=salt)
        for n in range(count)
    ]


def drifted(count: int, seed: int) -> list[LoggedRequest]:
    """Other prompts, darker pictures, refusals; the lengths of answers stay, and so do sizes of pictures."""
    rng = np.random.default_rng(seed)
    refusal = "I'm sorry, I can't help with that."
    rows = []
    for n in range(count):
        answer = refusal if rng.random() < 0.5 else ANSWERS[rng.integers(4)]
        rows.append(row(n, OTHER[rng.integers(3)], answer, brightness=float(rng.uniform(0.1, 0.4)), salt="drift"))
    return rows


def write_log(directory: Path, rows: list[LoggedRequest], max_bytes: int = 10**9) -> Path:
    RequestLog(directory, max_bytes)
    append_rows(directory / "requests-000001.jsonl", rows)
    return directory


def watch(log: Path, baseline: Path, out: Path, *more: object) -> Result:
    words = ["monitor", str(log), "--baseline", str(baseline), "--out", str(out), *map(str, more)]
    return CliRunner().invoke(app, words)


def results(out: Path) -> dict[str, Any]:
    findings: dict[str, Any] = json.loads((out / "monitor.json").read_text())
    return findings


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_log(tmp_path_factory.mktemp("logs") / "baseline", usual(300, 0, "base"))


def test_calm_is_calm_and_a_drift_is_named(baseline: Path, tmp_path: Path) -> None:
    log, out = write_log(tmp_path / "log", usual(300, 1, "new")), tmp_path / "watch"
    first = watch(log, baseline, out)
    assert first.exit_code == 0, first.output
    found = results(out)
    assert {one["state"] for one in found["findings"]} == {"calm"} and found["rows"] == found["new_rows"] == 300
    assert found["alpha_each"] == pytest.approx(0.05 / 11) and len(found["findings"]) == 11
    append_rows(log / "requests-000001.jsonl", drifted(150, 2))
    second = watch(log, baseline, out)
    assert second.exit_code == 1, second.output
    found = results(out)
    assert (found["rows"], found["new_rows"]) == (450, 150)
    alarms = {one["name"]: one for one in found["findings"] if one["state"] == "alarm"}
    assert {"vocabulary", "brightness", "refusals"} <= set(alarms)
    assert not {"picture_size", "contrast", "saturation", "detail", "cut_off"} & set(alarms)
    assert 300 < alarms["brightness"]["alarm_after"] < 450  # yesterday's rows counted, and were calm
    assert alarms["refusals"]["baseline"] == 0 and alarms["refusals"]["now"] == pytest.approx(1 / 6, abs=0.03)
    page = (out / "monitor.html").read_text()
    assert "<title>Alarm" in page and "Which stocks should I buy today?" in page
    third = watch(log, baseline, out)  # nothing new: still an alarm, since a bar that was reached stays reached
    assert third.exit_code == 1 and results(out)["new_rows"] == 0


def test_reading_in_parts_is_reading_whole(baseline: Path, tmp_path: Path) -> None:
    rows = [*usual(130, 3, "parts"), *drifted(90, 4)]
    whole = write_log(tmp_path / "whole", rows)
    watch(whole, baseline, tmp_path / "one")
    parts = tmp_path / "parts"
    for start in range(0, len(rows), 50):
        write_log(parts, rows[start : start + 50])
        watch(parts, baseline, tmp_path / "many")
        with (parts / "requests-000001.jsonl").open("ab") as file:
            file.write(b'{"id": "torn')  # a server is writing; the next append cuts it off
    states = [json.loads((tmp_path / name / "state.json").read_text()) for name in ("one", "many")]
    assert states[0] == states[1]
    assert results(tmp_path / "one") == {**results(tmp_path / "many"), "new_rows": len(rows)}


def test_a_picture_counts_once_and_failed_calls_do_not_count(baseline: Path, tmp_path: Path) -> None:
    same = usual(1, 5, "same")[0]
    rows = [same.model_copy(update={"id": f"{n:032x}"}) for n in range(30)]
    rows += [row(n, "x", "y", salt="failed", status=500) for n in range(5)]
    watch(write_log(tmp_path / "log", rows), baseline, tmp_path / "watch")
    found = results(tmp_path / "watch")
    counts = {one["name"]: one["n"] for one in found["findings"]}
    assert counts["brightness"] == 1 and counts["prompt_words"] == 30 and found["failed"] == 5


def test_hostile_text_is_text(baseline: Path, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script></style><img src=x onerror=alert(1)>\u202egnp.exe"
    rows = [row(n, hostile, f"I'm sorry, I can't help. {hostile}", salt="hostile") for n in range(120)]
    rows = [one.model_copy(update={"time": hostile}) for one in rows]
    assert watch(write_log(tmp_path / "log", rows), baseline, tmp_path / "watch").exit_code == 1
    page = (tmp_path / "watch/monitor.html").read_text()
    assert "<script" not in page and "<img" not in page and page.count("</style>") == 1
    assert "&lt;script&gt;alert(1)" in page and "\u202e" not in page.split("Unusual rows")[1]


def test_a_redacted_log_is_watched_by_its_measures(baseline: Path, tmp_path: Path) -> None:
    rows = [one.model_copy(update={"prompt": None, "answer": None, "history": None}) for one in drifted(120, 6)]
    assert watch(write_log(tmp_path / "log", rows), baseline, tmp_path / "watch").exit_code == 1
    assert "(not kept)" in (tmp_path / "watch/monitor.html").read_text()


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[LoggedRequest], list[LoggedRequest]]:
    """Scenes of the lab, their own descriptions as answers, and those of other scenes, which hallucinate."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(ScenesConfig(described=1.0), "preference", 60, folder / "samples")
    samples = list(read_rows(folder / "samples/samples.jsonl", Sample))
    right, wrong = list[LoggedRequest](), list[LoggedRequest]()
    for n, sample in enumerate(samples):
        digest = hashlib.sha256((folder / "samples" / sample.images[0]).read_bytes()).hexdigest()
        other = samples[(n + 7) % len(samples)].reference or ""
        for rows, answer, salt in ((right, sample.reference or "", "right"), (wrong, other, "wrong")):
            logged = row(n, sample.prompt, answer, salt=salt)
            picture = logged.images[0].model_copy(update={"sha256": digest})
            rows.append(logged.model_copy(update={"images": (picture,)}))
    return folder / "samples", right, wrong


def test_a_judge_looks_at_a_sample(
    scenes: tuple[Path, list[LoggedRequest], list[LoggedRequest]], tmp_path: Path
) -> None:
    samples, right, wrong = scenes
    judge = tmp_path / "judge.yaml"
    judge.write_text("judge: {name: oracle}\naspect: mistakes\nbelow: 0\nmost: 55\n")
    base, log = write_log(tmp_path / "base", right), write_log(tmp_path / "log", wrong)
    done = watch(log, base, tmp_path / "watch", "--judge", judge, "--truth", samples)
    assert done.exit_code == 1, done.output
    report = results(tmp_path / "watch")
    (found,) = [one for one in report["findings"] if one["name"] == "hallucination"]
    known = {
        sample.prompt + (sample.reference or ""): sample for sample in read_rows(samples / "samples.jsonl", Sample)
    }
    mistakes = []
    for one in right[:55]:
        sample = known[(one.prompt or "") + (one.answer or "")]
        item = JudgeInput(Prefix((), sample.prompt), sample.reference or "", sample.reference, sample.truth)
        mistakes.append(score(item).aspects["mistakes"] < 0)
    assert (found["baseline_n"], found["state"], found["n"]) == (55, "alarm", 55)
    assert found["baseline"] == pytest.approx(np.mean(mistakes)) and found["baseline"] < 0.4
    assert found["now"] > 0.8 and report["judged"] == 55 and report["unscored"] == 0
    assert [one["name"] for one in report["findings"] if one["state"] == "alarm"] == ["hallucination"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--set", "alpha=2"), "alpha"),
        (("--set", "alhpa=0.1"), "did you mean 'alpha'?"),
        (("--set", "least=1000"), "1000 values: choose"),
        (("--truth", "x"), "need a judge"),
        (("--baseline", "{nowhere}"), "is neither a log nor a finished evaluation"),
    ],
)
def test_bad_input(baseline: Path, tmp_path: Path, change: tuple[str, ...], sentence: str) -> None:
    log = write_log(tmp_path / "log", usual(5, 0, "x"))
    options = [word.format(nowhere=tmp_path / "nowhere") for word in change]
    done = watch(log, baseline, tmp_path / "watch", *options)
    assert done.exit_code == 2 and sentence in " ".join(done.stderr.split()) and "Traceback" not in done.output


def test_another_watch_and_a_broken_row_are_refused(baseline: Path, tmp_path: Path) -> None:
    log, out = write_log(tmp_path / "log", usual(30, 0, "x")), tmp_path / "watch"
    assert watch(log, baseline, out).exit_code == 0
    other = watch(log, baseline, out, "--set", "alpha=0.01")
    assert other.exit_code == 2 and "belongs to another baseline" in other.stderr
    with (log / "requests-000001.jsonl").open("a") as file:
        file.write('{"id": 1}\n')
    broken = watch(log, baseline, out)
    assert broken.exit_code == 2 and "requests-000001.jsonl byte" in broken.stderr
    assert watch(tmp_path, baseline, tmp_path / "new").exit_code == 2
    (out / "state.json").write_text("{")
    assert watch(log, baseline, out).exit_code == 2


def test_measures_by_hand() -> None:
    one = row(0, "Is there a Cup, a cup?", "No, none.")
    values = {measure.name: measure.value(one) for measure in MEASURES}
    assert values["prompt_words"] == 6 and values["picture_size"] == 96 and values["yes"] == 0
    by_name = {measure.name: measure for measure in MEASURES}
    assert by_name["prompt_words"].grid(7.0) == 48 and by_name["brightness"].grid(0.5) == 128
    assert by_name["cut_off"].value(one) == 0 and by_name["refusals"].value(one) == 0
    assert dataclasses.replace(by_name["yes"]).value(row(0, "x", "Two.")) is None
    # One known word seen three times: (1 + 3) / (256 + 3) of the mass lies in its bucket.
    known = vocabulary([text_stats("cup cup cup")])
    assert known.value(row(0, "cup", "")) == pytest.approx(-math.log(4 / (BUCKETS + 3)))
    assert text_stats("Cup cup, CUP!") == text_stats("cup cup cup")
    assert [plain_yes(text) for text in ("Yes.", "no", "**No**, it", "Nothing", "A yes")] == [
        True,
        False,
        False,
        None,
        None,
    ]
    assert [is_refusal(t) for t in ("I cannot see it.", "As an AI, I", "I can help.", "It can't move.")] == [1, 1, 0, 0]
    assert (evidence_text(2.345), evidence_text(420.0)) == ("2.3", "420")


def test_a_log_says_where_reading_goes_on(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", usual(3, 0, "x"))
    ((_, first), *_rest) = list(read_log(log))
    assert [one.id for one, _ in read_log(log, first)] == [one.id for one in usual(3, 0, "x")[1:]]
