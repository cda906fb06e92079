"""Stored verdicts: resume after interruption, retry of failed calls, logged costs, and drift of anchors."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from sightline.cli import app
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.judging.anchors import ITEMS, draw, drift, read_anchors, summarize
from sightline.evals.judging.judged_scoring import Judging, check_anchors
from sightline.evals.judging.verdicts import GradedVerdict
from sightline.evals.registry import get_benchmark
from sightline.records import read_rows
from tests.evals.benches.official_files import values, write_lines
from tests.evals.judging.conftest import graded, judge_at
from tests.evals.judging.folders import mmhal_answers, mmhal_folder
from tests.judges.local_server import Act, Body, pictures_of, say, serving, status, text_of


def all_sixes(body: Body, number: int) -> Act:
    return say("Rating: 6")


def test_what_was_said_is_not_asked_again_and_other_answers_are(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data")
    with serving(all_sixes) as (url, heard):
        uncached = judge_at(url, {"cache": False})
        graded("mmhal", data, mmhal_answers(data, *"abcdefgh"), uncached, out=tmp_path / "one")
        assert len(heard.bodies) == 8
        result, costs = graded("mmhal", data, mmhal_answers(data, *"abcdefgh"), uncached, out=tmp_path / "one")
        assert len(heard.bodies) == 8 and costs == [] and values(result)["score"] == 6
        # Another judge, or another answer, is another verdict.
        graded("mmhal", data, mmhal_answers(data, *"abcdefgX"), uncached, out=tmp_path / "two")
        assert len(heard.bodies) == 16
    kept = list(read_rows(tmp_path / "one/mmhal/verdicts.jsonl", GradedVerdict))
    assert len(kept) == 8 and {v.judge for v in kept} == {uncached.identity(get_grading(data))}
    # The verdicts are read again without the server, by the file that was kept.
    answers = write_lines(tmp_path / "a.jsonl", mmhal_answers(data, *"abcdefgh"))
    done = call("mmhal", "--answers", answers, "--data", data, "--verdicts", tmp_path / "one/mmhal/verdicts.jsonl")
    assert done["score"]["value"] == 6 and done["score"]["n"] == 8


def get_grading(data: Path) -> Any:
    benchmark = get_benchmark("mmhal", BenchmarkOptions(data))
    return benchmark.grading  # type: ignore[attr-defined]


def call(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["score", *map(str, arguments), "--json", "--resamples", "100"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_failed_calls_are_asked_again_alone(tmp_path: Path) -> None:
    data, broken = mmhal_folder(tmp_path / "data"), [True]

    def script(body: Body, number: int) -> Act:
        return status(500, {}) if broken[0] and "answered: c" in text_of(body) else say("Rating: 4")

    with serving(script) as (url, heard):
        config = judge_at(url, {"retries": 0})
        result, _ = graded("mmhal", data, mmhal_answers(data, *"abcdefgh"), config, out=tmp_path / "out")
        assert result.estimates["score"].unscored == 1 and len(heard.bodies) == 8
        assert result.notes == ("1 judge calls failed; run the same command again to retry only these",)
        broken[0] = False
        result, costs = graded("mmhal", data, mmhal_answers(data, *"abcdefgh"), config, out=tmp_path / "out")
        assert result.estimates["score"].unscored == 0 and len(heard.bodies) == 9 and result.notes == ()
    assert costs[0].startswith("judge m: 1 calls to make (0 more are cached)")


def test_a_rate_limit_delays_and_loses_nothing(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data")

    def limited(body: Body, number: int) -> Act:
        return (
            status(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.05"})
            if number < 6
            else say("Rating: 5")
        )

    with serving(limited) as (url, heard):
        result, _ = graded("mmhal", data, mmhal_answers(data, *"abcdefgh"), judge_at(url, {"retries": 6}))
    assert (values(result)["score"], result.estimates["score"].unscored, len(heard.bodies)) == (5, 0, 14)


def test_killed_and_started_again_it_asks_for_the_rest(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data", 16)
    answers = write_lines(tmp_path / "a.jsonl", mmhal_answers(data, *"abcdefghijklmnop"))
    held = [True]

    def script(body: Body, number: int) -> Act:
        def act(handler: Any) -> None:
            while held[0] and number >= 9 and not handler.closing.wait(0.02):
                pass
            say("Rating: 3")(handler)

        return act

    with serving(script) as (url, heard):
        config = tmp_path / "judge.yaml"
        config.write_text(f"server: {{base_url: '{url}', model: m, concurrency: 2, cache: false, timeout: 60}}\n")
        command = [sys.executable, "-m", "sightline", "score", "mmhal", "--answers", answers, "--data", data]
        command += ["--judge", config, "--out", tmp_path / "out", "--resamples", "100", "--json"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        until = time.monotonic() + 60
        while len(heard.bodies) < 11 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
        assert len(list(read_rows(tmp_path / "out/mmhal/verdicts.jsonl", GradedVerdict))) == 8  # four rounds of two
        held[0], before = False, len(heard.bodies)
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert len(heard.bodies) == before + 8
    figures = json.loads(done.stdout)
    assert (figures["score"]["value"], figures["score"]["n"]) == (3, 16)
    assert "8 calls to make" in done.stderr


def test_costs_are_told_before_and_after(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data", 4)
    with serving(lambda body, number: say("Rating: 6", tokens=250_000)) as (url, _):
        config = judge_at(url, {"max_tokens": 1000}, prompt_price=2.0, reply_price=8.0, currency="EUR")
        _, costs = graded("mmhal", data, mmhal_answers(data, *"abcd"), config)
        length = sum(len(config.grading(get_grading(data)).text(case)) for case in cases(data, "abcd"))
        prompts = round(length / 4)
        price = (prompts * 2 + 4000 * 8) / 1e6
        assert costs[0] == (
            f"judge m: 4 calls to make (0 more are cached), about {prompts:,} prompt tokens, at most 4,000"
            f" reply tokens, at most {price:.2f} EUR"
        )
        assert costs[1] == (
            "judge m: 4 calls, 0 prompt tokens, 1,000,000 reply tokens, 8.00 EUR; unscored: 0 failed, 0 unreadable of 4"
        )
        _, costs = graded("mmhal", data, mmhal_answers(data, *"abcd"), config)
        assert "0 calls to make (4 more are cached)" in costs[0]
        assert "0 calls, 0 prompt tokens, 0 reply tokens, 0.00 EUR" in costs[1]


def cases(data: Path, texts: str) -> list[Any]:
    from sightline.records.rows import Answer

    benchmark: Any = get_benchmark("mmhal", BenchmarkOptions(data))
    pairs = zip(benchmark.samples(), texts, strict=True)
    return [benchmark.case(s, Answer(sample_id=s.id, cluster=s.cluster, text=text)) for s, text in pairs]


def test_runs_are_averaged(tmp_path: Path) -> None:
    from tests.evals.judging.folders import mmvet_folder

    data = mmvet_folder(tmp_path / "data")
    rows = [{"id": f"v1_{n}", "text": "x"} for n in range(4)]
    with serving(lambda body, number: say("0.2" if body["seed"] == 0 else "0.8")) as (url, heard):
        result, _ = graded("mm-vet", data, rows, judge_at(url, runs=2))
        assert len(heard.bodies) == 8
    assert values(result)["total"] == pytest.approx(0.5)


# --- anchors ----------------------------------------------------------------------------------------------------------


def test_a_perfect_and_a_contrary_judge_of_anchors() -> None:
    more = {"judge": "j", "model": "m", "protocol": "p", "when": "today"}
    perfect = summarize([anchor.worth for anchor in ITEMS], **more)
    assert (perfect.bias, perfect.error, perfect.order) == (0.0, 0.0, 1.0)
    contrary = summarize([1 - anchor.worth for anchor in ITEMS], **more)
    assert contrary.order == 0.0 and contrary.error == pytest.approx(9.2 / 12)
    flat = summarize([0.5] * 12, **more)
    assert flat.order == 0.5
    silent = summarize([None] * 12, **more)
    assert (silent.bias, silent.error, silent.order) == (None, None, None)
    moved = summarize([None, *(anchor.worth - 0.1 for anchor in ITEMS[1:])], **more)
    assert drift(perfect, moved) == pytest.approx((-0.1, 0.1)) and drift(silent, moved) is None
    assert len(ITEMS) == 12 and len({anchor.answer for anchor in ITEMS}) == 12


def test_anchors_are_asked_afresh_and_show_drift(tmp_path: Path) -> None:
    data, grade = mmhal_folder(tmp_path / "data", 1), [6]
    benchmark = get_benchmark("mmhal-v", BenchmarkOptions(data))
    seen: list[tuple[int, ...]] = []

    def script(body: Body, number: int) -> Act:
        seen.append(pictures_of(body)[0].size)
        return say(f"Rating: {grade[0]}")

    with serving(script) as (url, heard):
        judging = Judging(judge_at(url))
        first = check_anchors(benchmark, judging, tmp_path / "out", datetime(2026, 1, 1, tzinfo=UTC))
        grade[0] = 3
        second = check_anchors(benchmark, judging, tmp_path / "out", datetime(2026, 1, 2, tzinfo=UTC))
        assert len(heard.bodies) == 24 and set(seen) == {(192, 128)}
    kept = read_anchors(tmp_path / "out/anchors.jsonl")
    assert [day.grades for day in kept] == [(1.0,) * 12, (0.5,) * 12]
    assert kept[0].bias == pytest.approx(1 - sum(anchor.worth for anchor in ITEMS) / 12)
    assert "drift" not in first and second.endswith(
        "drift since 2026-01-01T00:00:00+00:00 by m: -0.500 on average, 0.500 at most"
    )


def test_the_drawn_scenes_hold_what_is_said_of_them(tmp_path: Path) -> None:
    draw("three", tmp_path / "s.png")
    colors = Image.open(tmp_path / "s.png").convert("RGB").getcolors()
    assert colors is not None and {color for _, color in colors} == {(255, 255, 255), (240, 200, 40), (204, 40, 40)}


def test_the_command_takes_a_judge_and_anchors(tmp_path: Path) -> None:
    data = mmhal_folder(tmp_path / "data", 2)
    answers = write_lines(tmp_path / "a.jsonl", mmhal_answers(data, "a", "b"))
    arguments = ("mmhal", "--answers", answers, "--data", data, "--out", tmp_path / "out")
    with serving(all_sixes) as (url, heard):
        settings = ("--set", f"judge.server.base_url={url}", "--set", "judge.server.model=m")
        assert call(*arguments, *settings, "--anchors")["score"]["value"] == 6
        assert len(heard.bodies) == 2 + 12
    assert len(read_anchors(tmp_path / "out/mmhal/anchors.jsonl")) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--set", "judge.server.modle=m"), "unknown key 'server.modle'; did you mean 'server.model'"),
        (("--set", "seed=1"), "only keys of the judge can be set here, such as judge.server.model=NAME"),
        (("--set", "judge.server.model=m"), "'server.base_url' is missing"),
        (("--anchors",), "--anchors needs a judge, and --out"),
        (("--judge", "none.yaml"), "none.yaml"),
        (("--verdicts", "none.jsonl"), "none.jsonl does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    data = mmhal_folder(tmp_path / "data", 1)
    answers = write_lines(tmp_path / "a.jsonl", mmhal_answers(data, "a"))
    done = CliRunner().invoke(app, ["score", "mmhal", "--answers", str(answers), "--data", str(data), *options])
    assert done.exit_code == 2 and sentence in done.stderr, done.output
    assert done.stderr.count("\n") == 1
