"""Servers in a study's config: jobs that a server answers, their commands, keys and refusals."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sightline.endpoint import GenerationServerConfig
from sightline.errors import InputError
from sightline.study.config import StudyConfig
from sightline.study.execute import JobContext, command_words, execute_job
from sightline.study.launch import plan_stages
from sightline.study.plan import StudyPlan, parse_plan, plan_study, plan_text
from sightline.study.runner import job_contexts
from tests.study.test_study_plan import STUDY

URL = "http://127.0.0.1:8000/v1"
SERVER: dict[str, Any] = {"base_url": URL, "model": "served", "concurrency": 4}


def planned(**changes: Any) -> StudyPlan:
    pairs: dict[str, Any] = {
        **STUDY["pairs"],
        "ranked": {"builder": "ranked", "samples": "scenes", "set": {"judge": {"name": "oracle"}, "answers": 2}},
    }
    arms: dict[str, Any] = {"dpo": {"pairs": "ranked"}}
    return plan_study(StudyConfig.model_validate({**STUDY, "pairs": pairs, "arms": arms, "seeds": [0], **changes}))


def of_kind(jobs: Mapping[str, JobContext], kind: str) -> list[JobContext]:
    return [job for job in jobs.values() if job.piece.kind == kind]


def test_the_models_server_answers_for_it_wherever_answers_are_enough(tmp_path: Path) -> None:
    """In evaluations and in builders of whole answers; the base's evaluation, pairs and the arm's adapter."""
    plan = planned(models={"small": {"path": "lab", "endpoint": SERVER}})
    jobs = job_contexts(plan, tmp_path)
    (pairs,) = of_kind(jobs, "pairs")
    words = command_words(pairs)
    assert "--model" not in words and words[words.index("--endpoint") + 1] == URL
    sets = [following for word, following in pairwise(words) if word == "--endpoint-set"]
    assert sets == ["model=served", "concurrency=4"]
    base, arm = of_kind(jobs, "eval")
    assert all("--endpoint" in command_words(job) and "--model" not in command_words(job) for job in (base, arm))
    assert "--endpoint-adapter" in command_words(arm) and "--endpoint-adapter" not in command_words(base)
    (training,) = of_kind(jobs, "train")
    assert "--model" in command_words(training) and training.piece.server is None
    assert parse_plan(plan_text(plan)) == plan
    own = planned(models={"small": {"path": "lab"}})
    assert not own.jobs.keys() & {pairs.piece.key, base.piece.key, arm.piece.key}


def test_the_address_decides_no_key_and_the_model_does() -> None:
    def keys(**changes: Any) -> set[str]:
        return set(planned(models={"small": {"path": "lab", "endpoint": {**SERVER, **changes}}}).jobs)

    assert keys() == keys(base_url="http://other:1/v1", concurrency=9, timeout=5) != keys(model="another")


def test_jobs_of_a_server_need_no_gpu() -> None:
    plan = planned(models={"small": {"path": "lab", "endpoint": SERVER}})
    from sightline.study.launch import _cards

    found = {piece.kind: _cards(plan, piece) for stage in plan_stages(plan) for piece in stage}
    assert found == {"samples": 0, "pairs": 0, "train": 1, "eval": 0}


def test_who_cannot_use_a_server_is_refused() -> None:
    hidden: dict[str, Any] = {"builder": "bdhs", "samples": "scenes", "set": {"rho": 0.9}, "endpoint": SERVER}
    with pytest.raises(InputError, match="bdhs needs hidden image tokens and continued texts of a model"):
        planned(pairs={"hidden": hidden}, arms={"dpo": {"pairs": "hidden"}})
    with pytest.raises(InputError, match="is a whole model, and servers load adapters only"):
        planned(
            evaluate={**STUDY["evaluate"], "endpoint": SERVER}, arms={"dpo": {"pairs": "ranked", "set": {"lora": None}}}
        )
    with pytest.raises(ValidationError, match="one server cannot answer for several models"):
        planned(
            models={"one": {"path": "lab"}, "two": {"path": "elsewhere"}},
            evaluate={**STUDY["evaluate"], "endpoint": SERVER},
        )
    with pytest.raises(ValidationError, match="`endpoint` answers for the model of a `builder`"):
        planned(pairs={"given": {"path": "pairs", "endpoint": SERVER}})


def test_a_job_asks_its_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions of the commands receive the server in the model's place."""
    jobs = job_contexts(planned(models={"small": {"path": "lab", "endpoint": SERVER}}), tmp_path)
    (pairs,) = of_kind(jobs, "pairs")
    with pytest.raises(InputError):  # the scenes are not drawn, or nobody serves: whichever comes first
        execute_job(pairs)
    calls: list[tuple[Any, Any]] = []
    monkeypatch.setattr("sightline.evals.run.evaluate", lambda model, out, config, **_: calls.append((model, config)))
    with pytest.raises(InputError):  # no manifest was written
        execute_job(of_kind(jobs, "eval")[0])
    assert calls[0][0] == GenerationServerConfig.model_validate(SERVER) and not hasattr(calls[0][1], "endpoint")
