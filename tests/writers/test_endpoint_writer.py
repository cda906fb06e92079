"""The endpoint writer: each task's prompt, images only if needed, seeds, and failures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sightline.endpoint import client
from sightline.models.context import RunContext
from sightline.models.requests import JudgeInput, Prefix
from sightline.records.rows import Turn
from sightline.writers.endpoint import EndpointWriterConfig
from sightline.writers.prompts import PROMPTS
from sightline.writers.writer import Task, Writer, WriterTask
from tests.judges.local_server import Act, Body, say, serving, status, task_images, text_of

pytest.importorskip("openai")
TASKS: tuple[Task, ...] = ("corrupt", "correct", "alter", "split")
MakeImage = Callable[..., Path]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)


def open_writer(url: str, **server: Any) -> Writer:
    section = {"base_url": url, "model": "m", "retries": 1, "timeout": 5, **server}
    return EndpointWriterConfig.model_validate({"name": "endpoint", "server": section}).open(
        RunContext(Path(), Path(), 0)
    )


def test_each_task_has_its_prompt_and_a_picture_where_it_needs_one(make_image: MakeImage) -> None:
    about = JudgeInput(Prefix((make_image(),), "What {is} it?"), "A {red} cup.")

    def script(body: Body, number: int) -> Act:
        task = next(task for task in TASKS if text_of(body).startswith(PROMPTS[task].split("{question}")[0]))
        return say(f' "{task} {len(task_images(body))}"\n', tokens=3)

    with serving(script) as (url, heard):
        written = open_writer(url).write([WriterTask(task, about) for task in TASKS])
    assert [one.text for one in written] == ["corrupt 0", "correct 1", "alter 0", "split 0"]
    assert {one.tokens for one in written} == {3}
    assert all(prompt.endswith("Question: What {is} it?\nAnswer: A {red} cup.") for prompt in heard.texts())


def test_places_of_pictures_become_words(make_image: MakeImage) -> None:
    pictures = (make_image("one.png"), make_image("two.png", color="red"))
    prefix = Prefix(pictures, "And <image>?", (Turn(role="user", text="Look at <image>!"),))
    with serving(lambda body, number: say("ok")) as (url, heard):
        open_writer(url).write([WriterTask("correct", JudgeInput(prefix, "A cup."))])
    assert text_of(heard.bodies[0]).endswith(
        "Question: User: Look at [picture 1]!\nUser: And [picture 2]?\nAnswer: A cup."
    )
    assert len(task_images(heard.bodies[0])) == 2


def test_the_seed_goes_along_and_tells_drafts_apart() -> None:
    drafts = [WriterTask("corrupt", JudgeInput(Prefix((), "What?"), "A cup."), seed) for seed in (5, 6, 5, 2**62 + 5)]
    with serving(lambda body, number: say(f"seed {body.get('seed')}")) as (url, heard):
        written = open_writer(url, seed=1, temperature=0.7).write(drafts)
        assert [one.text for one in written] == ["seed 6", "seed 7", "seed 6", "seed 6"]
        open_writer(url, seed=None).write(drafts[:2])
    assert len(heard.bodies) == 5  # of the first four one was a repetition; without a seed two are still two
    assert {body["temperature"] for body in heard.bodies[:3]} == {0.7} and "seed" not in heard.bodies[-1]


@pytest.mark.parametrize(
    ("act", "note"),
    [
        (status(500, {"error": {"message": "full"}}), "full"),
        (say(""), "empty reply"),
        (say('""'), "empty reply"),
        (say("A blue c", finish="length"), "cut off at max_tokens"),
        (status(400, {"error": {"message": "too long"}}), "too long"),
    ],
)
def test_what_fails_is_none_and_says_why(act: Act, note: str) -> None:
    def script(body: Body, number: int) -> Act:
        return act if "bad" in text_of(body) else say("A blue cup.")

    drafts = [WriterTask("alter", JudgeInput(Prefix((), "What?"), answer)) for answer in ("A good cup.", "A bad cup.")]
    with serving(script) as (url, _):
        good, bad = open_writer(url, concurrency=1).write(drafts)
    assert good.text == "A blue cup." and good.note == ""
    assert bad.text is None and note in bad.note


def test_without_a_picture_nothing_is_corrected() -> None:
    drafts = [WriterTask(task, JudgeInput(Prefix((), "What?"), "A cup.")) for task in ("correct", "alter", "correct")]
    with serving(lambda body, number: say("ok")) as (url, heard):
        written = open_writer(url).write(drafts)
    assert [one.text for one in written] == [None, "ok", None] and "needs a picture" in written[0].note
    assert len(heard.bodies) == 1


def test_the_identity_hangs_on_what_decides_texts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_writer("http://a/v1").identity
    assert open_writer("http://b/v1", timeout=9, concurrency=1, cache=False).identity == before
    assert len({before, *(open_writer("http://a/v1", **{k: 1}).identity for k in ("temperature", "seed"))}) == 3
    monkeypatch.setitem(PROMPTS, "split", "Another prompt. {question} {answer}")
    assert open_writer("http://a/v1").identity != before
