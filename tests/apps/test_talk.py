"""A talk with the lab's model: streams, pictures that come in, preferences as labels, and what the page's parts say."""

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from sightline.apps.chat.config import ChatConfig
from sightline.apps.chat.launch import ChatModel, model_names
from sightline.apps.chat.page import (
    NOTHING,
    ChatHandlers,
    PageState,
    answer_html,
    history_html,
    picture_html,
    status_html,
)
from sightline.apps.chat.session import ChatQuestion, ChatSession, NamedModel, Side
from sightline.builders.from_labels import FromLabelsConfig, pairs_from_labels
from sightline.data.labels import read_items, read_ratings
from sightline.data.preference_dataset import read_pairs
from sightline.errors import InputError
from sightline.lab import BASE
from sightline.models.loading import load_vlm
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.spec import ModelSpec
from sightline.models.vlm import VLM
from sightline.records import Turn

HOSTILE = "<script>alert(1)</script>${alert(1)}{{value}}`\\"


@pytest.fixture(scope="module")
def lab() -> VLM:
    return load_vlm(BASE)


@pytest.fixture
def talk(lab: VLM, tmp_path: Path) -> ChatSession:
    config = ChatConfig(max_new_tokens=12, temperature=1.0)
    return ChatSession.begin(tmp_path / "chat", [NamedModel("base", lab), NamedModel("other", lab)], config, "Me")


@pytest.fixture
def question(talk: ChatSession, make_image: Callable[..., Path]) -> ChatQuestion:
    name = talk.take(make_image(size=(64, 64)).read_bytes(), "picture.png")
    return ChatQuestion("Describe the image.", (name,))


def test_what_is_streamed_is_what_generate_gives(talk: ChatSession, question: ChatQuestion, lab: VLM) -> None:
    steps = list(talk.answer(question))
    prefix = Prefix((talk.folder / question.images[0],), question.prompt)
    sampling = Sampling(12, temperature=1.0)
    expected = generate(lab, [GenerateRequest(prefix, seed=0), GenerateRequest(prefix, seed=1)], sampling, batch_size=2)
    assert list(steps[-1]) == expected
    assert expected[0].text != expected[1].text
    assert len(steps) == sum(generation.tokens for generation in expected)
    assert (steps[0][0].tokens, steps[0][1].tokens, steps[1][1].tokens) == (1, 0, 1)  # they take turns


def test_greedy_is_generate(lab: VLM, question: ChatQuestion, talk: ChatSession) -> None:
    one = ChatSession(talk.folder, talk.models[:1], ChatConfig(max_new_tokens=16), talk.rater)
    prefix = Prefix((talk.folder / question.images[0],), question.prompt)
    (expected,) = generate(lab, [GenerateRequest(prefix)], Sampling(16), batch_size=1)
    assert list(one.answer(question))[-1] == (expected,)


def test_pictures_are_written_anew_and_bad_ones_are_refused(talk: ChatSession) -> None:
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "who and where"
    Image.new("RGB", (30, 20), "teal").save(buffer, "JPEG", exif=exif)
    name = talk.take(buffer.getvalue(), "../../p.jpg")
    assert name.startswith("images/") and name.endswith(".png")
    assert b"who and where" not in (talk.folder / name).read_bytes()
    assert talk.take(buffer.getvalue(), "again.jpg") == name
    for data, problem in ((b"", "0 bytes"), (b"no picture", "is not an image"), (buffer.getvalue()[:300], "damaged")):
        with pytest.raises(InputError, match=problem):
            talk.take(data, "p.jpg")
    assert [path.name for path in (talk.folder / "images").iterdir()] == [Path(name).name]


@pytest.mark.parametrize(
    ("blind", "side", "verdict"),
    [
        (False, "left", "first"),
        (False, "right", "second"),
        (True, "left", None),
        (True, "right", None),
        (True, "tie", "tie"),
    ],
)
def test_preferences_are_labels(
    talk: ChatSession, question: ChatQuestion, blind: bool, side: Side, verdict: str | None
) -> None:
    talk.config = ChatConfig(blind=blind)
    swapped = talk.is_swapped(question)
    expected = verdict or ("first" if (side == "left") != swapped else "second")
    talk.keep(question, ("A car.", "A dog."), side)
    talk.keep(question, ("A car.", "A dog."), side)
    (item,) = read_items(talk.folder).values()
    assert (item.first.id, item.first.text, item.second.id, item.second.text) == ("base", "A car.", "other", "A dog.")
    (row,) = read_ratings(talk.folder)["me"].values()
    assert (row.item, row.verdict, row.swapped) == (item.id, expected, swapped and blind)


def test_a_talk_becomes_pairs_and_goes_on(talk: ChatSession, question: ChatQuestion, tmp_path: Path) -> None:
    talk.keep(question, ("A car.", "A dog."), "right")
    again = ChatSession.begin(talk.folder, talk.models, talk.config, "me")
    later = ChatQuestion(
        "And what color?", question.images, (Turn(role="user", text="x"), Turn(role="assistant", text="y"))
    )
    again.keep(question, ("A car.", "A dog."), "left")
    again.keep(later, ("Red.", "Blue."), "left")
    pairs_from_labels(talk.folder, tmp_path / "pairs", FromLabelsConfig())
    found = {pair.prompt: (pair.chosen, pair.rejected, pair.history) for pair in read_pairs(tmp_path / "pairs")}
    assert found == {
        "Describe the image.": ("A car.", "A dog.", ()),
        "And what color?": ("Red.", "Blue.", later.history),
    }


@pytest.mark.parametrize("texts", [("Same.", " Same. "), ("", "A."), ("A.",)])
def test_what_is_no_choice_is_not_kept(talk: ChatSession, question: ChatQuestion, texts: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="a preference needs two different answers"):
        talk.keep(question, texts, "left")
    assert not (talk.folder / "items.jsonl").exists()


def test_questions_have_a_length(talk: ChatSession) -> None:
    with pytest.raises(InputError, match="the question is empty"):
        next(talk.answer(ChatQuestion(" ")))
    with pytest.raises(InputError, match="8001 characters; the limit is 8000"):
        next(talk.answer(ChatQuestion("x" * 8001)))


def test_hostile_text_is_text() -> None:
    for html in (
        answer_html(HOSTILE, HOSTILE, HOSTILE),
        status_html(HOSTILE),
        history_html([Turn(role="user", text=HOSTILE)], HOSTILE),
    ):
        assert not set("{}$`\\") & set(html)
        assert "<script" not in html
    assert picture_html(None) == picture_html(Path("nowhere.png"))


def test_names_tell_models_apart() -> None:
    one, same = ChatModel(ModelSpec(name="a/base")), ChatModel(ModelSpec(name="b/base"))
    assert model_names((one, same)) == ["base (1)", "base (2)"]
    adapted = ChatModel(ModelSpec(name="a/base", adapter=Path("runs/train-0/adapter")))
    assert model_names((one, adapted)) == ["base", "base + train-0"]


def test_the_pages_parts(talk: ChatSession, question: ChatQuestion) -> None:
    gradio: Any = SimpleNamespace(update=lambda interactive: interactive)
    chat = ChatHandlers(gradio, talk)
    shown = PageState(image=question.images[0])
    updates = list(chat.ask(" Describe the image. ", shown))
    assert [parts[-3:] for parts in updates[:-1]] == [(False,) * 3] * (len(updates) - 1)
    cleared, state, before, *cards, line = updates[-1][:-3]
    assert (cleared, updates[-1][-3:]) == ("", (True,) * 3)
    assert "Which is better?" in line and "Describe the image." in before
    assert all(text in html for text, html in zip(state.texts, cards, strict=True))
    state, before, *_, line, left, _, _ = chat.keep("right", state)
    assert "Saved: B is better." in line and left is False
    assert [turn.text for turn in state.history] == ["Describe the image.", state.texts[1]]
    assert chat.keep("right", PageState())[-4].count("Not saved: a preference needs two different answers") == 1
    refused = list(chat.ask("  ", state))
    assert "the question is empty" in refused[0][-4] and refused[0][1].question == NOTHING
    assert refused[0][1].history == state.history
