"""Image placeholders in a conversation: round trips between turns and messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.data.turns import content_entries, messages, to_turns
from sightline.errors import InputError
from sightline.records import Turn

SYSTEM, QUESTION, ANSWER = (
    Turn(role="system", text="Be brief."),
    Turn(role="user", text="What is it?"),
    Turn(role="assistant", text="A cup."),
)


def test_without_a_place_images_stand_before_the_first_user_turn() -> None:
    assert messages((), "Which one?", 2, "row") == [("user", [None, None, "Which one?"])]
    result = messages((SYSTEM, QUESTION, ANSWER), "Its color?", 1, "row")
    assert result == [
        ("system", ["Be brief."]),
        ("user", [None, "What is it?"]),
        ("assistant", ["A cup."]),
        ("user", ["Its color?"]),
    ]


def test_places_decide_and_line_breaks_beside_them_go() -> None:
    result = messages((), "First <image>\nand second\n<image> differ how?", 2, "row")
    assert result == [("user", ["First ", None, "and second", None, " differ how?"])]
    later = messages((QUESTION, ANSWER), "<image>\nAnd this?", 1, "row")
    assert later[-1] == ("user", [None, "And this?"]) and None not in later[0][1]


@pytest.mark.parametrize(("prompt", "images"), [("<image> and <image>?", 1), ("<image>?", 0), ("<image>", 3)])
def test_places_and_images_must_agree(prompt: str, images: int) -> None:
    with pytest.raises(InputError, match=rf"row 7 has \d <image> placeholders and {images} images"):
        messages((), prompt, images, "row 7")


@pytest.mark.parametrize("conversation", [[], [("assistant", ["Hi."])], [("user", ["Hi."]), ("assistant", ["Hi."])]])
def test_the_user_speaks_last(conversation: list[tuple[str, list[str | None]]]) -> None:
    with pytest.raises(ValueError, match="must be the user's"):
        to_turns(conversation)


def test_entries_of_either_form() -> None:
    assert content_entries("a <image> b") == ["a ", None, " b"]
    assert content_entries([{"type": "image"}, {"type": "text", "text": "b"}]) == [None, "b"]
    with pytest.raises(ValueError, match="video"):
        content_entries([{"type": "video"}])


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[str, list[str | None]]]:
    entry = st.one_of(st.none(), st.sampled_from(["a", "b c", " d.", "é{%"]))
    turns = draw(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.lists(entry, min_size=1)), max_size=3))
    last = ("user", draw(st.lists(entry, min_size=1, max_size=4)))
    # Texts side by side are one text; images belong to users.
    earlier = [(role, [e for e in entries if e is not None or role == "user"]) for role, entries in turns]
    return [(role, _joined(entries)) for role, entries in [*earlier, last] if entries]


def _joined(entries: list[str | None]) -> list[str | None]:
    joined: list[str | None] = []
    for entry in entries:
        if entry is not None and joined and joined[-1] is not None:
            joined[-1] += entry
        else:
            joined.append(entry)
    return joined


@given(conversations())
def test_there_and_back(conversation: list[tuple[str, list[str | None]]]) -> None:
    history, prompt = to_turns(conversation)
    images = sum(entry is None for _, entries in conversation for entry in entries)
    assert messages(history, prompt, images, "row") == conversation
    assert to_turns(messages(history, prompt, images, "row")) == (history, prompt)
