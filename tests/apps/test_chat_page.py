"""`sightline chat` in a real browser with the lab's model: a bad picture, a good one, streamed answers, a choice.

Needs Chromium and Gradio; else skipped.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from sightline.apps.chat.config import ChatConfig
from sightline.apps.chat.session import ChatQuestion, ChatSession, NamedModel
from sightline.data.labels import read_items, read_ratings
from sightline.lab import BASE
from sightline.models.loading import load_vlm
from tests.apps.browser import browser
from tests.apps.serving import serving
from tests.chromium import CHROMIUM

pytest.importorskip("gradio")

HOSTILE = 'What is <img src=x onerror="window.hacked=1"> ${window.hacked=1} {{value}}?'


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_talk_in_a_browser(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    folder = tmp_path / "chat"
    good, bad = make_image("good.png", (64, 64)), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:60])
    command = ["chat", str(BASE), "--beside", str(BASE), "--out", str(folder), "--port", "0"]
    settings = ["--set", "max_new_tokens=12", "--set", "temperature=1"]
    with serving(*command, *settings) as served, browser(tmp_path / "profile") as tab:
        address = served.address
        tab.resize(1280, 800)
        tab.open(address)
        tab.wait("document.querySelector('#question textarea')")
        tab.upload("input[type=file]", bad)
        tab.wait("document.querySelector('#status').innerText.includes('truncated or damaged')")
        assert not tab.run("document.querySelector('#picture img') !== null")
        tab.upload("input[type=file]", good)
        tab.wait("document.querySelector('#picture img')")
        tab.run("document.querySelector('#question textarea').focus()")
        tab.type(HOSTILE)
        tab.press("Enter")
        tab.wait("document.querySelector('#status').innerText.includes('Which is better?')")
        (image,) = (path.name for path in (folder / "images").iterdir())
        vlm = load_vlm(BASE)
        models = [NamedModel("base (1)", vlm), NamedModel("base (2)", vlm)]
        talk = ChatSession.begin(folder, models, ChatConfig(max_new_tokens=12, temperature=1.0), "other")
        *_, generations = talk.answer(ChatQuestion(HOSTILE, (f"images/{image}",)))
        texts = [generation.text.strip() for generation in generations]
        assert tab.run("[...document.querySelectorAll('.said .text')].map(e => e.textContent)") == texts
        titles = tab.run("[...document.querySelectorAll('.said h2')].map(e => e.textContent)")
        assert titles == ["A: base (1)", "B: base (2)"]
        assert tab.run("document.querySelector('.turn.user').textContent") == HOSTILE
        for width in (1280, 390, 320):
            tab.resize(width, 800)
            assert tab.run("document.documentElement.scrollWidth") <= width
        tab.press("Escape")
        tab.press("2")
        tab.wait("document.querySelector('#status').innerText.includes('Saved: B is better')")
        (item,) = read_items(folder).values()
        assert (item.prompt, item.first.text, item.second.text) == (HOSTILE, *texts)
        assert read_ratings(folder)["me"][item.id].verdict == "second"
        assert tab.run("window.hacked") is None
        assert tab.errors == []
        assert {
            place for place in tab.requested if not place.startswith((address, "data:", "blob:", "about:"))
        } == set()
    assert {path.name for path in folder.iterdir()} <= {"images", "items.jsonl", "manifest.json", "raters", "work"}
