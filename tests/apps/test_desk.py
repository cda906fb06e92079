"""The desk: orders that are drawn and kept, forms that become rows, what is refused, and where a rater goes on."""

from pathlib import Path
from typing import Any

import pytest

from sightline.apps.label.session import Form, LabelConfig, LabelingSession, is_swapped, parse_form, to_rating
from sightline.data.labels import read_ratings
from sightline.errors import InputError
from sightline.records import AnswerAnnotation, LabelItem, RatedAnswer

CONFIG = LabelConfig(criteria=("faithful", "clear"))


def item(name: str) -> LabelItem:
    return LabelItem(
        id=name,
        sample_id=name,
        images=("p.png",),
        prompt="<image>\nWhat is there?",
        first=RatedAnswer(id="chosen", text="A red car."),
        second=RatedAnswer(id="rejected", text="A \N{GRINNING FACE} blue car and a dog."),
    )


def desk(folder: Path, count: int = 4, config: LabelConfig = CONFIG) -> LabelingSession:
    return LabelingSession(
        folder, [item(f"i{n}") for n in range(count)], config, seed=0, picture=lambda path: f"shown {path.name}"
    )


def form(name: str, verdict: str, rater: str = "ann", **fields: Any) -> Form:
    return parse_form({"rater": rater, "item": name, "verdict": verdict, **fields})


def test_orders_are_drawn_fairly_and_for_each_rater_anew() -> None:
    drawn = {rater: [is_swapped(0, rater, f"i{n}") for n in range(1000)] for rater in ("ann", "bo")}
    assert all(440 <= sum(orders) <= 560 for orders in drawn.values())
    same = sum(one == other for one, other in zip(*drawn.values(), strict=True))
    assert 440 <= same <= 560
    assert drawn["ann"] == [is_swapped(0, "ann", f"i{n}") for n in range(1000)]
    assert drawn["ann"] != [is_swapped(1, "ann", f"i{n}") for n in range(1000)]


@pytest.mark.parametrize(("swapped", "verdict"), [(False, "first"), (True, "second")])
def test_a_form_becomes_a_row_in_the_items_own_order(swapped: bool, verdict: str) -> None:
    text = item("i").second.text if swapped else item("i").first.text
    sides = [{"marks": [1], "correction": f" {text} ", "grades": {"clear": 4}}, {"correction": "A car.", "grades": {}}]
    rating = to_rating(form("i", "left", sides=sides, seconds=1.23), item("i"), CONFIG, swapped)
    left, right = (rating.second, rating.first) if swapped else (rating.first, rating.second)
    assert (rating.verdict, rating.swapped, rating.seconds) == (verdict, swapped, 1.2)
    assert [text[start:end] for start, end in left.marks] == ["blue" if swapped else "red"]
    assert left.correction is None  # it is the text itself
    assert left.grades == {"clear": 4}
    assert right == AnswerAnnotation(correction="A car.")


@pytest.mark.parametrize(
    ("sides", "problem"),
    [
        ([{"marks": [99]}, {}], "words and no word 99"),
        ([{"grades": {"clear": 6}}, {}], "grade 6 for 'clear' is not one of 1 to 5 for faithful, clear"),
        ([{}, {"grades": {"<b>": 1}}], "grade 1 for '<b>' is not one of"),
    ],
)
def test_what_the_item_lacks_is_refused(sides: list[Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        to_rating(form("i", "tie", sides=sides), item("i"), CONFIG, False)


@pytest.mark.parametrize("sides", [[{"marks": [0]}, {}], [{}, {"correction": "A car."}]])
def test_what_is_not_asked_is_refused(sides: list[Any]) -> None:
    with pytest.raises(InputError, match="disabled; reload the page"):
        to_rating(form("i", "tie", sides=sides), item("i"), LabelConfig(marks=False, corrections=False), False)


@pytest.mark.parametrize(
    "sent",
    [
        None,
        [],
        {},
        {"rater": "a", "item": "i", "verdict": "first"},
        {"rater": "a", "item": "i", "verdict": "left", "more": 1},
        {"rater": "a", "item": "i", "verdict": "left", "sides": [{}]},
        {"rater": "a", "item": "i", "verdict": "left", "sides": [{"correction": "x" * 20_001}, {}]},
    ],
)
def test_what_is_no_form_is_refused(sent: object) -> None:
    with pytest.raises(InputError, match=r"the form cannot be saved: .*; reload the page"):
        parse_form(sent)


def test_a_rater_goes_on_where_he_was(tmp_path: Path) -> None:
    first = desk(tmp_path)
    view = first.enter("Ann")
    assert (view["rater"], view["count"], view["done"], view["item"]["place"]) == ("ann", 4, 0, 0)
    assert (view["item"]["prompt"], view["item"]["images"]) == ("What is there?", ["shown p.png"])
    assert first.keep(form("i0", "left"))["item"]["place"] == 1
    assert first.keep(form("i2", "tie"))["item"]["place"] == 3
    assert first.keep(form("i3", "skip"))["item"]["place"] == 1  # round to what is open
    again = desk(tmp_path)
    view = again.enter("ann")
    assert (view["done"], view["item"]["place"]) == (3, 1)
    assert again.turn_to("ann", 0)["item"]["verdict"] == "left"
    assert again.turn_to("ann", -5)["item"]["place"] == 0
    assert again.turn_to("ann", 99)["item"]["verdict"] == "skip"
    assert again.next_open("ann", 99)["item"]["place"] == 1
    assert again.keep(form("i1", "right"))["item"] is None
    assert {name: rating.verdict for name, rating in read_ratings(tmp_path)["ann"].items()} == {
        name: _verdict(name, side) for name, side in {"i0": "left", "i1": "right", "i2": "tie", "i3": "skip"}.items()
    }


def _verdict(name: str, side: str) -> str:
    if side in ("tie", "skip"):
        return side
    return "second" if (side == "right") != is_swapped(0, "ann", name) else "first"


def test_what_was_noted_comes_back_as_it_stood(tmp_path: Path) -> None:
    first = desk(tmp_path)
    before = first.enter("ann")["item"]["sides"]
    sides = [{"marks": [0, 1], "correction": "Better.", "grades": {"clear": 2}}, {"grades": {"faithful": 5}}]
    first.keep(form("i0", "right", sides=sides))
    after = desk(tmp_path).turn_to("ann", 0)["item"]["sides"]
    assert [side["text"] for side in after] == [side["text"] for side in before]
    assert (after[0]["marks"], after[0]["correction"], after[0]["grades"]) == ([0, 1], "Better.", {"clear": 2})
    assert (after[1]["marks"], after[1]["correction"], after[1]["grades"]) == ([], None, {"faithful": 5})


def test_two_raters_have_a_file_each(tmp_path: Path) -> None:
    both = desk(tmp_path)
    both.keep(form("i0", "left", "ann"))
    both.keep(form("i0", "tie", "bo"))
    assert both.enter("bo")["done"] == 1
    assert sorted(path.name for path in (tmp_path / "raters").iterdir()) == ["ann.jsonl", "bo.jsonl"]


def test_an_item_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no item 'other'"):
        desk(tmp_path).keep(form("other", "left"))
    assert not (tmp_path / "raters").exists()
