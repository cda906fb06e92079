"""Judge and writer against `transformers serve` with the lab's model: a real server, real pictures, on loopback."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sightline.data.images import open_image
from sightline.data.request_log import picture_file, read_log
from sightline.endpoint import Ask, Endpoint, EndpointConfig
from sightline.errors import InputError
from sightline.judges.endpoint import EndpointJudgeConfig, grade_prompt
from sightline.judges.judge import ComparisonInput, prefer
from sightline.lab import BASE
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, JudgeInput, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.writers.endpoint import EndpointWriterConfig
from sightline.writers.prompts import task_text
from sightline.writers.writer import WriterTask
from tests.apps.conftest import standing_before
from tests.builders.conftest import save_scenes

NEEDED = ("openai", "fastapi", "uvicorn")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs openai and transformers[serving]"
)
TOOLS = RunContext(Path(), Path(), 0)
DESCRIBE = "Describe the picture."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base_url of `transformers serve`, which ends with the tests."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port = place.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    program = Path(sys.executable).with_name("transformers")
    command = [
        str(program),
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]  # it loads the models that are asked for
    settings = ["--device", "cpu", "--dtype", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        log.open("wb") as file,
        subprocess.Popen([*command, *settings], stdout=file, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _wait(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                assert response.status == 200
                return
        except urllib.error.URLError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scenes")
    return [folder / name for name in save_scenes(folder, 4)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))


def section(url: str, **settings: object) -> EndpointConfig:
    return EndpointConfig.model_validate({"base_url": url, "model": str(BASE), "max_tokens": 48, **settings})


def test_pictures_go_through_and_greedy_replies_are_the_models_own(server: str, scenes: list[Path]) -> None:
    """The same weights in this process say the same to the same pictures, which differ from scene to scene."""
    replies = Endpoint(section(server, concurrency=2)).ask([Ask(DESCRIBE, (scene,)) for scene in scenes])
    own = generate(
        load_vlm(BASE), [GenerateRequest(Prefix((scene,), DESCRIBE)) for scene in scenes], Sampling(48), batch_size=4
    )
    assert all(one.finished for one in own)
    assert [reply.text for reply in replies] == [one.text.strip() for one in own]
    assert len({reply.text for reply in replies}) == len(scenes)
    # The server counts the token that ends the turn or not; we do.
    assert all(0 <= one.tokens - reply.tokens <= 1 for reply, one in zip(replies, own, strict=True))


def test_the_door_changes_nothing_and_writes_it_down(server: str, scenes: list[Path], tmp_path: Path) -> None:
    """Through `sightline serve`'s door the model says what it says without; picture and answer are in the log."""
    ask = Ask(DESCRIBE, (scenes[0],))
    (direct,) = Endpoint(section(server)).ask([ask])
    settings: dict[str, Any] = {"model": str(BASE), "by_stream": True, "keep_images": True}
    with standing_before(server.removesuffix("/v1"), tmp_path / "log", **settings) as client:
        (through,) = Endpoint(section(f"{client.base_url}/v1".replace("//v1", "/v1"), cache=False)).ask([ask])
        body = {**ask.body(section(server)), "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as streamed:
            data = b"".join(streamed.iter_raw())
    assert through.text == direct.text
    rows = [row for row, _ in read_log(tmp_path / "log")]
    assert [row.answer and row.answer.strip() for row in rows] == [direct.text] * 2
    assert [row.prompt for row in rows] == [DESCRIBE] * 2 and all(row.finished for row in rows)
    assert data.count(b"data: ") > 5
    (picture,) = rows[0].images
    with Image.open(scenes[0]) as scene:
        assert (picture.width, picture.height) == scene.size
        kept = open_image(picture_file(tmp_path / "log", picture.sha256), "the log")
        assert np.array_equal(np.asarray(kept), np.asarray(scene.convert("RGB")))


def test_the_judge_asks_and_what_is_no_verdict_is_unscored(server: str, scenes: list[Path]) -> None:
    """A model of ten megabytes describes whatever it is asked; the pipe is tested, not the verdicts."""
    judge = EndpointJudgeConfig(name="endpoint", server=section(server), mode="grade").open(TOOLS)
    inputs = [JudgeInput(Prefix((scene,), DESCRIBE), "A red cup.") for scene in scenes[:2]]
    verdicts = judge.score(inputs)
    prompts = [GenerateRequest(Prefix(one.prefix.images, grade_prompt(one, (), reference=False))) for one in inputs]
    own = generate(load_vlm(BASE), prompts, Sampling(48), batch_size=2)
    for verdict, reply in zip(verdicts, own, strict=True):
        assert verdict.score is None
        assert verdict.note == (
            f"unparsable reply: {reply.text.strip()}" if reply.finished else "cut off at max_tokens"
        )


def test_the_comparing_judge_leaves_pairs_unscored(server: str, scenes: list[Path]) -> None:
    judge = EndpointJudgeConfig(name="endpoint", server=section(server)).open(TOOLS)
    prefix = Prefix((scenes[0],), DESCRIBE)
    assert prefer(judge, [ComparisonInput(JudgeInput(prefix, "A red cup."), JudgeInput(prefix, "A cow."))]) == [None]


def test_the_writer_writes_what_the_model_says(server: str, scenes: list[Path]) -> None:
    writer = EndpointWriterConfig(name="endpoint", server=section(server)).open(TOOLS)
    about = JudgeInput(Prefix((scenes[0],), DESCRIBE), "A red cup stands on the table.")
    drafts = [WriterTask("correct", about), WriterTask("alter", about)]
    written = writer.write(drafts)
    prompts = [
        GenerateRequest(Prefix((scenes[0],), task_text(drafts[0]))),
        GenerateRequest(Prefix((), task_text(drafts[1]))),
    ]
    own = generate(load_vlm(BASE), prompts, Sampling(48), batch_size=2)
    assert [one.text for one in written] == [one.text.strip() if one.finished else None for one in own]


def test_seeds_sample_and_repeat(server: str, scenes: list[Path], tmp_path: Path) -> None:
    """The server samples only where the model's own generation config does, whatever the temperature."""
    sampling = tmp_path / "sampling"
    shutil.copytree(BASE, sampling)
    generation = json.loads((BASE / "generation_config.json").read_text())
    (sampling / "generation_config.json").write_text(json.dumps({**generation, "do_sample": True}))
    asks = [Ask(DESCRIBE, (scenes[0],), seed) for seed in range(4)]
    # One at a time: the server seeds the whole process, and calls side by side would share the stream.
    config = section(server, model=str(sampling), temperature=1.0, concurrency=1, cache=False)
    first = Endpoint(config).ask(asks)
    assert Endpoint(config).ask(asks) == first and len({reply.text for reply in first}) > 1


def test_a_model_that_is_not_there_stops_the_run(server: str, tmp_path: Path) -> None:
    config = section(server, model=str(tmp_path / "none"), retries=0)
    with pytest.raises(InputError, match="failed 8 calls and answered none"):
        Endpoint(config).ask([Ask(str(number)) for number in range(20)])
