"""Pairs by a server in the model's place: those of the model itself, resumed without paying twice, failures counted."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.builders.build import BUILT, REPLIES, BuildPlan, build_dataset
from sightline.builders.builder import Builder, BuildResult
from sightline.builders.corrupted_image import WEAKENED, WeakenedConfig
from sightline.builders.ranked import RANKED, RankedConfig
from sightline.builders.registry import BUILDERS
from sightline.builders.sampled_answers import FAILED, REFUSED
from sightline.cli import app
from sightline.data.samples import write_samples
from sightline.endpoint import GenerationServerConfig, find_served_model
from sightline.errors import InputError
from sightline.generators.server import ServerGenerator
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.context import RunContext
from sightline.models.generator import ModelGenerator
from sightline.models.loading import load_vlm
from sightline.models.requests import FailedGeneration, GenerateRequest, Generation, Prefix, Sampling
from sightline.records import Sample, read_manifest, read_rows
from sightline.records.rows import IMAGE, Turn
from tests.builders.builders import build_results
from tests.judges.local_server import status
from tests.models.tiny import save_tiny_llava
from tests.train.adapter_server import Served, serving_adapters

pytest.importorskip("openai")
GREEDY = WeakenedConfig(chosen="own", image=("small",), temperature=0.0, max_new_tokens=8, unfinished=True, wave=2)
NAME = "tiny"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five scenes with a description each, the third asked in a conversation about it."""
    folder = write_scenes(
        ScenesConfig(described=1.0, captioned=0.0), "validation", 5, tmp_path_factory.mktemp("s") / "s"
    )
    rows = list(read_rows(folder / "samples.jsonl", Sample))
    history = (Turn(role="user", text=f"{IMAGE}\nHello."), Turn(role="assistant", text="Hello."))
    rows[2] = rows[2].model_copy(update={"history": history})
    write_samples(folder, rows)
    return folder


@pytest.fixture
def server(model: Path) -> Iterator[tuple[str, Served]]:
    with serving_adapters(model, name=NAME) as found:
        yield found


def by_server(builder: Builder[Any], config: Any, url: str, **settings: Any) -> BuildPlan:
    server = GenerationServerConfig.model_validate({"base_url": url, "retries": 0, "concurrency": 2, **settings})
    return BuildPlan(builder, config, server=server)


def test_a_server_gives_the_pairs_of_the_model(
    model: Path, samples: Path, server: tuple[str, Served], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Greedily, so that the seeds do not matter: the same rows; what they cost is printed and in the manifest."""
    url, served = server
    own = build_dataset(BuildPlan(WEAKENED, GREEDY), model, samples, tmp_path / "own")
    found = build_dataset(by_server(WEAKENED, GREEDY, url), None, samples, tmp_path / "found")
    for name in ("pairs.jsonl", "work/built.jsonl"):
        assert (tmp_path / "found" / name).read_bytes() == (tmp_path / "own" / name).read_bytes()
    assert found.counts == own.counts and found.counts["pairs"] > 0 and found.complete
    assert found.config == {
        "endpoint": {
            "requested": None,
            "served": NAME,
            "root": str(model),
            "max_side": 4096,
            "temperature": True,
            "seed": True,
        },
        "config": own.config,
    }
    assert "model" not in found.inputs
    calls = served.calls("chat/completions")
    assert found.numbers["server_requests"] == len(calls) == 10
    assert found.numbers["server_reply_tokens"] == found.numbers["generated_tokens"]
    assert found.numbers["server_failures"] == 0 and found.numbers["server_seconds"] > 0
    assert not (tmp_path / "found" / REPLIES).exists()
    before, after = capsys.readouterr().err.strip().splitlines()
    assert before.startswith("server tiny: about 10 requests, about") and "(the first took" in before
    assert after.startswith("server tiny: 10 requests, 0 prompt tokens, ")


class _ServersSeeds:
    """The model in process, with seeds as servers take them: in 31 bits."""

    def __init__(self, model: Path) -> None:
        self._model = ModelGenerator(load_vlm(model), batch_size=4, autocast=False)

    def sample(self, requests: Sequence[GenerateRequest], sampling: Sampling) -> list[Generation | FailedGeneration]:
        return self._model.sample([replace(each, seed=each.seed % 2**31) for each in requests], sampling)


def test_sampled_answers_are_those_of_their_seeds(
    model: Path, samples: Path, server: tuple[str, Served], tmp_path: Path
) -> None:
    config = RankedConfig.model_validate(
        {"judge": {"name": "oracle"}, "answers": 3, "max_new_tokens": 8, "unfinished": True, "top_p": 0.9}
    )
    rows = list(read_rows(samples / "samples.jsonl", Sample))
    config_of_server = by_server(RANKED, config, server[0]).server
    assert config_of_server is not None
    generators = (_ServersSeeds(model), ServerGenerator(config_of_server, NAME))
    contexts = [RunContext(samples, tmp_path, 0, server=each) for each in generators]
    own, found = (build_results(RANKED.build, rows, context, config) for context in contexts)
    assert own == found
    assert len({text for body in server[1].calls("chat/completions") for text in [body["seed"]]}) == 15


def test_a_stopped_run_asks_for_nothing_twice(
    model: Path, samples: Path, server: tuple[str, Served], tmp_path: Path
) -> None:
    """Stopped within a wave, of which one sample is not written yet; its answers are kept beside."""

    class Interrupted(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Interrupted

    url, served = server
    plan = by_server(WEAKENED, GREEDY, url)
    with pytest.raises(Interrupted):
        build_dataset(plan, None, samples, tmp_path / "out", stop)
    assert len(list((tmp_path / "out" / REPLIES).rglob("*.json"))) == 8
    found = build_dataset(plan, None, samples, tmp_path / "out")
    own = build_dataset(BuildPlan(WEAKENED, GREEDY), model, samples, tmp_path / "own")
    assert (tmp_path / "out/pairs.jsonl").read_bytes() == (tmp_path / "own/pairs.jsonl").read_bytes()
    assert found.numbers["server_requests"] == len(served.calls("chat/completions")) == 10
    assert found.runs == 2 and own.counts == found.counts
    with pytest.raises(InputError, match=r"endpoint\.requested there: None, here: 'another'"):
        build_dataset(by_server(WEAKENED, GREEDY, url, model="another"), None, samples, tmp_path / "out")


def test_failures_are_counted_named_and_tried_again(samples: Path, server: tuple[str, Served], tmp_path: Path) -> None:
    """One prompt that the server never takes, and one for which it is too busy at first."""
    url, served = server
    rows = list(read_rows(samples / "samples.jsonl", Sample))
    prompts = [rows[0].prompt, "How many things are there?", "What is on the left?", *(row.prompt for row in rows[3:])]
    named = [row.model_copy(update={"prompt": text, "history": ()}) for row, text in zip(rows, prompts, strict=True)]
    folder = tmp_path / "asked"
    folder.mkdir()
    (folder / "images").symlink_to(samples / "images")
    write_samples(folder, named)

    def fault(busy: bool) -> Any:
        acts = {prompts[1]: status(400, {"error": {"message": "too long"}})}
        acts |= {prompts[2]: status(503, {"error": {"message": "overloaded"}})} if busy else {}
        return lambda body: next((act for text, act in acts.items() if text in str(body["messages"])), None)

    served.fault = fault(busy=True)
    plan = by_server(WEAKENED, GREEDY, url)
    with pytest.raises(InputError, match=f"failed to answer 1 samples, such as '{rows[2].id}'.*run the same command"):
        build_dataset(plan, None, folder, tmp_path / "out")
    assert not read_manifest(tmp_path / "out").complete
    first = len(served.calls("chat/completions"))
    served.fault = fault(busy=False)
    manifest = build_dataset(plan, None, folder, tmp_path / "out")
    assert len(served.calls("chat/completions")) == first + 2, "both answers to the one sample"
    assert manifest.dropped[REFUSED] == 1 and FAILED not in manifest.dropped
    assert manifest.counts["samples"] == 5
    built = {result.sample_id: result for result in read_rows(tmp_path / "out" / BUILT, BuildResult)}
    assert built.keys() == {row.id for row in rows} and built[rows[2].id].pairs


@pytest.mark.parametrize("name", [name for name, entry in BUILDERS.items() if entry.insides or not entry.needs_model])
def test_who_needs_more_than_answers_refuses_a_server(name: str, samples: Path, tmp_path: Path) -> None:
    words = ["pairs", name, "--samples", str(samples), "--out", str(tmp_path / "out"), "--endpoint", "http://x:1/v1"]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2 and refused.stderr.count("\n") == 1
    insides = BUILDERS[name].insides
    assert all(each in refused.stderr for each in insides or ("samples no model",))
    assert not (tmp_path / "out").exists()


def test_the_servers_model_is_the_one_it_lists(model: Path, server: tuple[str, Served]) -> None:
    url, served = server
    config = GenerationServerConfig(base_url=url)
    assert find_served_model(config).model_dump(include={"requested", "served", "root"}) == {
        "requested": None,
        "served": NAME,
        "root": str(model),
    }
    unlisted = find_served_model(config.model_copy(update={"model": "other"}))
    assert (unlisted.name, unlisted.served) == ("other", None)
    served.adapters["mine"] = served.base
    assert find_served_model(config).name == NAME
    served.name = None
    served.adapters.clear()
    with pytest.raises(InputError, match="does not list its models; name one with --endpoint-model"):
        find_served_model(config)
    with pytest.raises(InputError, match="no server answers at"):
        find_served_model(GenerationServerConfig(base_url="http://127.0.0.1:9/v1"))


def test_a_model_that_says_nothing_has_answered(server: tuple[str, Served]) -> None:
    from tests.judges.local_server import say

    url, served = server
    served.fault = lambda _: say("", tokens=1)
    generator = ServerGenerator(GenerationServerConfig(base_url=url), NAME)
    assert generator.sample([GenerateRequest(Prefix((), "Hello."))], Sampling(4)) == [Generation("", 1, finished=True)]
    served.fault = lambda _: say(None, finish="content_filter")
    (failed,) = generator.sample([GenerateRequest(Prefix((), "Hello."))], Sampling(4))
    assert failed == FailedGeneration("empty reply (content_filter)", may_pass=False)
