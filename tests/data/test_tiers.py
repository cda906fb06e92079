"""The three tiers of a prompt: round trips through every storage form of pairs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.data.formats.exporting import export_pairs
from sightline.data.formats.importing import ImportRequest, import_layout
from sightline.data.preference_dataset import PAIRS, read_pairs, write_preference_dataset
from sightline.data.turns import fold, messages, tiers, to_turns, unfold
from sightline.errors import InputError
from sightline.models.requests import Prefix, conversation_text
from sightline.records import Pair, Turn, write_rows

WANTED = tiers("Be brief.", "I am a child.")
FOLDED = "<System Info> Be brief.\n<User Info> I am a child.\n<User Query> What is it?"


def test_tiers_stand_in_the_first_user_turn_behind_its_images() -> None:
    assert messages(WANTED, "What is it?", 1, "row") == [("user", [None, FOLDED])]
    later = messages(
        (*WANTED, Turn(role="user", text="What is it?"), Turn(role="assistant", text="A cup.")), "Its color?", 0, "row"
    )
    assert later == [("user", [FOLDED]), ("assistant", ["A cup."]), ("user", ["Its color?"])]


def test_one_tier_alone_and_the_order_of_two() -> None:
    assert fold([*tiers(about_user="Hi."), Turn(role="user", text="Q")], "row")[0].text == (
        "<User Info> Hi.\n<User Query> Q"
    )
    assert fold([*WANTED[::-1], Turn(role="user", text="What is it?")], "row")[0].text == FOLDED
    assert tiers() == () and fold([Turn(role="user", text="Q")], "row") == [Turn(role="user", text="Q")]


@pytest.mark.parametrize(
    "turns",
    [
        (*WANTED, WANTED[0]),
        (Turn(role="user", text="Hi."), WANTED[0]),
        (Turn(role="system-info", text=" "),),
        (Turn(role="user-info", text="x\n<User Query> y"),),
    ],
)
def test_what_could_not_be_read_back_is_refused(turns: tuple[Turn, ...]) -> None:
    with pytest.raises(InputError, match="row 3"):
        messages(turns, "What is it?", 0, "row 3")


_texts = st.text(st.sampled_from("ab <>\nUserInfo."), min_size=1, max_size=12).filter(lambda text: text.strip())


@given(_texts, st.one_of(st.just(""), _texts), _texts)
def test_there_and_back(provider: str, about_user: str, query: str) -> None:
    turns = (*tiers(provider, about_user), Turn(role="user", text=query))
    assert unfold(fold(turns, "row")) == turns
    assert to_turns(messages(turns[:-1], query, 1, "row")) == (turns[:-1], query)


def test_whoever_is_told_of_a_conversation_hears_the_tiers() -> None:
    assert conversation_text(Prefix((), "What is it?", WANTED)) == (
        "System info: Be brief.\nUser info: I am a child.\nUser: What is it?"
    )


def test_pairs_with_tiers_come_back_from_every_form(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("pairs/images/a.png")
    pair = Pair(
        id="a", images=("images/a.png",), history=WANTED, prompt="What is it?", chosen="x", rejected="y", builder="b"
    )
    write_rows(tmp_path / "pairs" / PAIRS, [pair])
    write_preference_dataset(tmp_path / "pairs")
    (tmp_path / "pairs" / PAIRS).unlink()
    assert list(read_pairs(tmp_path / "pairs")) == [pair], "from the Parquet file"
    for layout in ("llama-factory", "ms-swift"):
        export_pairs(layout, tmp_path / "pairs", tmp_path / layout)
        text = next((tmp_path / layout).glob("preferences.*")).read_text()
        assert "<User Info> I am a child." in text
        import_layout(ImportRequest(tmp_path / layout, layout), tmp_path / f"{layout}-again")
        (again,) = read_pairs(tmp_path / f"{layout}-again")
        assert again.model_copy(update={"images": pair.images}) == pair
