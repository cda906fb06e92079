"""Fixtures for judged benchmarks: an isolated cache, no pauses, and scoring with a server on loopback."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from sightline.endpoint import client
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.judging.judge_client import EvalJudgeConfig
from sightline.evals.judging.judged_scoring import Judging
from sightline.evals.offline_scoring import ScoredFile, score_file
from tests.evals.benches.official_files import write_lines

pytest.importorskip("openai")

Judge = Callable[..., EvalJudgeConfig]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    return Path(os.environ["SIGHTLINE_CACHE"])


def judge_at(url: str, server: dict[str, Any] | None = None, **settings: Any) -> EvalJudgeConfig:
    """The judge at an address; it waits five seconds and tries twice."""
    section = {"base_url": url, "model": "m", "retries": 1, "timeout": 5, **(server or {})}
    return EvalJudgeConfig.model_validate({"server": section, **settings})


def graded(
    bench: str, data: Path, rows: Iterable[Mapping[str, Any]], config: EvalJudgeConfig, **options: Any
) -> tuple[ScoredFile, list[str]]:
    """Rows of answers scored with a judge, and the log lines on costs."""
    lines: list[str] = []
    answers = write_lines(data.parent / f"{bench}.jsonl", rows)
    result = score_file(
        bench, answers, BenchmarkOptions(data), judging=Judging(config, log=lines.append), resamples=100, **options
    )
    return result, lines
