"""`sightline label` by keyboard and mouse in a real browser: saved at once, gone on after a kill, two raters.

Needs Chromium and Gradio; else skipped.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sightline.apps.label.session import is_swapped
from sightline.cli import app
from sightline.data.labels import read_items, read_ratings
from sightline.records import Pair, Rating, write_rows
from tests.apps.browser import Tab, browser
from tests.apps.serving import serving
from tests.chromium import CHROMIUM

pytest.importorskip("gradio")

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>${window.hacked=1}{{value}}</textarea>'
TEXTS = [
    ("A red car stands left of a tree.", "A blue car stands left of a dog."),
    ("Three cups.", "Two cups \N{GRINNING FACE} and a spoon."),
    (HOSTILE, "Nothing <b>bold</b>."),
]


def write_pairs(folder: Path) -> None:
    rows = (
        Pair(
            id=f"p{n}",
            images=("one.png",),
            prompt=HOSTILE if n == 2 else "What is there?",
            chosen=a,
            rejected=b,
            builder="x",
        )
        for n, (a, b) in enumerate(TEXTS)
    )
    write_rows(folder / "pairs.jsonl", rows)


def sit_down(tab: Tab, name: str) -> None:
    tab.wait("document.querySelector('.desk #rater')")
    tab.run("document.querySelector('#rater').select()")
    tab.type(name)
    tab.press("Enter")
    tab.wait("document.querySelector('.desk article')")


def at_item(tab: Tab, number: int) -> None:
    tab.wait(
        f"document.querySelector('.where') && document.querySelector('.where').innerText.startsWith('item {number} ')"
    )


def rows_of(labels: Path, rater: str) -> dict[str, Rating]:
    return read_ratings(labels)[rater]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_labeling_in_a_browser(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("pairs/one.png", (120, 80))
    write_pairs(tmp_path / "pairs")
    labels = tmp_path / "labels"
    command = ["label", str(tmp_path / "pairs"), "--out", str(labels), "--set", "criteria=[faithful, clear]"]
    with browser(tmp_path / "profile") as tab:
        with serving(*command, "--port", "0") as served:
            address = served.address
            tab.resize(1280, 800)
            tab.open(address)
            sit_down(tab, "Ann")
            at_item(tab, 1)
            first_item(tab)
            at_item(tab, 2)
            (row,) = rows_of(labels, "ann").values()  # on disk before the next item is shown
            check_first(row)
            check_widths(tab)
            assert tab.errors == []
            served.process.kill()
            served.process.wait(30)
            tab.press("t")
            tab.wait("document.querySelector('.note').innerText.includes('nothing was saved')")
        with (labels / "raters" / "ann.jsonl").open("ab") as file:
            file.write(b'{"item":"p1","rater":"an')  # as a kill in the middle of a write leaves it
        with serving(*command, "--port", address.rpartition(":")[2]) as served:
            assert served.address == address
            go_on(tab, address)
            second_rater(tab)
            assert tab.run("window.hacked") is None
            assert tab.errors == []
        assert {
            place for place in tab.requested if not place.startswith((address, "data:", "blob:", "about:"))
        } == set()
    check_the_rest(labels)


def check_widths(tab: Tab) -> None:
    """Nothing sticks out on a desk or a phone."""
    for width in (1280, 390, 320):
        tab.resize(width, 800)
        assert tab.run("document.documentElement.scrollWidth") <= width


def go_on(tab: Tab, address: str) -> None:
    """The page that was open goes on by itself; one that is loaded anew knows the name; hostile text is text."""
    tab.press("t")
    at_item(tab, 3)
    tab.errors.clear()
    tab.open(address)
    tab.wait("document.querySelector('#rater') && document.querySelector('#rater').value === 'ann'")
    tab.press("Enter")
    at_item(tab, 3)
    assert HOSTILE in tab.run("document.querySelector('.prompt').innerText")
    shown = tab.run("[...document.querySelectorAll('.text')].map(e => e.textContent)")
    assert sorted(shown) == sorted(TEXTS[2])
    tab.press("b")
    tab.press("c")
    tab.wait("document.activeElement.tagName === 'TEXTAREA'")
    tab.type("12ts ")  # letters, and no choices
    tab.press("Escape")
    tab.press("Escape")
    tab.press("2")
    tab.wait("document.body.innerText.includes('All done')")


def second_rater(tab: Tab) -> None:
    """Skips the first item by mouse, goes back, and chooses after all."""
    tab.click(".who button")
    sit_down(tab, "Bo")
    tab.click(".verdict", 3)
    at_item(tab, 2)
    tab.press("ArrowLeft")
    at_item(tab, 1)
    tab.press("1")
    at_item(tab, 2)


def first_item(tab: Tab) -> None:
    """Mark the second word of A by keys and the first of B by mouse, grade A, choose A."""
    tab.press("a")
    for key in ("ArrowRight", " ", "4", "2"):
        tab.press(key)
    tab.press("Escape")
    count = tab.run("document.querySelectorAll('article')[0].querySelectorAll('.word').length")
    tab.click(".word", count)
    assert tab.run("[...document.querySelectorAll('.marked')].map(e => e.textContent)")[1] == "A"
    tab.press("Escape")
    tab.press("1")


def check_first(row: Rating) -> None:
    swapped = is_swapped(0, "ann", "p0")
    left, right = (row.second, row.first) if swapped else (row.first, row.second)
    assert (row.item, row.verdict, row.swapped) == ("p0", "second" if swapped else "first", swapped)
    text = TEXTS[0][swapped]
    assert [text[start:end] for start, end in left.marks] == [text.split()[1]]
    assert left.grades == {"faithful": 4, "clear": 2}
    assert right.marks == ((0, 1),)
    assert row.seconds is not None and row.seconds > 0


def check_the_rest(labels: Path) -> None:
    ann, bo = rows_of(labels, "ann"), rows_of(labels, "bo")
    assert (labels / "raters" / "ann.jsonl.torn").read_bytes() == b'{"item":"p1","rater":"an\n'
    assert (ann["p1"].verdict, list(ann)) == ("tie", ["p0", "p1", "p2"])
    swapped = is_swapped(0, "ann", "p2")
    assert ann["p2"].verdict == ("first" if swapped else "second")
    noted, other = (ann["p2"].first, ann["p2"].second) if swapped else (ann["p2"].second, ann["p2"].first)
    item = read_items(labels)["p2"]
    text = (item.first if swapped else item.second).text
    assert noted.correction is not None
    assert sorted(noted.correction) == sorted(f"{text}12ts ".strip())
    assert other.correction is None
    lines = [json.loads(line) for line in (labels / "raters" / "bo.jsonl").read_text().splitlines()]
    assert [line["verdict"] for line in lines] == ["skip", bo["p0"].verdict]
    assert bo["p0"].verdict == ("second" if is_swapped(0, "bo", "p0") else "first")  # the last row counts


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["label", "nowhere"], "holds neither pairs.jsonl nor data/*.parquet"),
        (["label", "pairs", "--set", "criteria=[a, a]"], "criteria must have distinct, non-empty names"),
        (["label", "pairs", "--set", "criteri=[a]"], "criteria"),
        (["label", "pairs", "--agreement"], "holds no items.jsonl"),
        (["label", "pairs", "--host", "203.0.113.9"], "cannot be opened"),
    ],
)
def test_mistakes_end_with_a_sentence(
    tmp_path: Path, make_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    from typer.testing import CliRunner

    make_image("pairs/one.png")
    write_pairs(tmp_path / "pairs")
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, [*arguments, "--port", "0"])
    assert ended.exit_code == 2
    assert problem in " ".join(ended.output.split())
    assert not (tmp_path / "pairs-labels").exists()
