"""Findings in single rows and across rows, each planted once in a good dataset."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline.errors import InputError
from tests.check.datasets import Checked, checked, picture, row, write

LETTERS = "A red cup, a plate and a very small kettle stand on the long table beside the window"


def test_a_good_dataset_has_no_findings(tmp_path: Path) -> None:
    found = checked(write(tmp_path / "pairs", [row(n) for n in range(6)]), tmp_path / "out")
    assert found.findings == [] and not found.report.is_bad
    assert (found.report.rows, found.report.readable, found.report.images, found.report.removable) == (6, 6, 6, 0)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")], "scratch is deleted"


PLANTED: list[tuple[str, dict[str, Any]]] = [
    ("id", {"id": ""}),
    ("id", {"id": "pair-0"}),
    ("image-path", {"images": ["images/none.png"]}),
    ("image-path", {"images": ["../outside.png"]}),
    ("image-path", {"images": ["/etc/hostname"]}),
    ("image-path", {"images": ["a\0b.png"]}),
    ("image-path", {"images": ["x" * 5000]}),
    ("image-path", {"images": [""]}),
    ("image-remote", {"images": ["https://example.org/a.png"]}),
    ("image-remote", {"images": ["s3://bucket/a.png"]}),
    ("image-remote", {"images": ["data:image/png;base64,AAAA"]}),
    ("placeholders", {"prompt": "<image> or <image>?"}),
    ("placeholders", {"images": [], "prompt": "<image> What?"}),
    ("placeholders", {"chosen": "See <image> here."}),
    ("empty", {"prompt": " "}),
    ("empty", {"prompt": "<image>\n"}),
    ("empty", {"rejected": "\n"}),
    ("equal", {"chosen": "Yes.", "rejected": " Yes."}),
    ("equal", {"second_rejected": row(3)["chosen"]}),
    ("equal-normalized", {"chosen": "A red cup!", "rejected": "a  red cup"}),
]


@pytest.mark.parametrize(("check", "columns"), PLANTED)
def test_a_bad_row_is_found_and_the_others_are_not(tmp_path: Path, check: str, columns: dict[str, Any]) -> None:
    rows: list[dict[str, Any] | str] = [row(n) for n in range(5)]
    rows[3] = row(3, **columns)
    found = checked(write(tmp_path / "pairs", rows), tmp_path / "out")
    assert dict(found.rows) == {check: [4]}
    assert found.line(check).verdict == "bad" and found.line(check).rows == 1
    assert found.report.removable == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not JSON", "invalid JSON"),
        ('{"id": "torn', "invalid JSON"),
        ("[1, 2]", "input"),
        ('{"id": "x"}', "key"),
        (json.dumps(row(1, chosn="x")), "unknown key 'chosn'"),
        (json.dumps(row(1, chosen=None)), "chosen"),
        ('{"id": "\\ud800"}', ""),
        ("\x00\x01", "invalid JSON"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_finding(tmp_path: Path, line: str, reason: str) -> None:
    found = checked(write(tmp_path / "pairs", [row(0), line, row(2)]), tmp_path / "out")
    assert dict(found.rows) == {"row": [2]}
    assert reason.lower() in found.reason("row").lower()
    assert (found.report.rows, found.report.readable) == (3, 2)
    assert found.line("row").examples == ("pairs.jsonl line 2",)


def test_a_line_that_is_not_utf_8_is_a_finding_that_names_the_byte(tmp_path: Path) -> None:
    place = write(tmp_path / "pairs", [row(n) for n in range(3)])
    lines = (place / "pairs.jsonl").read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b"red cups", b"caf\xe9 cups")
    (place / "pairs.jsonl").write_bytes(b"".join(lines))
    found = checked(place, tmp_path / "out")
    at = (place / "pairs.jsonl").read_bytes().index(b"\xe9")
    assert dict(found.rows) == {"row": [2]}
    assert found.reason("row") == f"byte {at} is 0xE9, which is not UTF-8 (Latin-1 or Windows-1252?)"


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ('"prompt": "Who?", ', "key 'prompt' occurs twice in one object"),
        ('"provenance": {"score": 1e999}, ', "number '1e999' is too large"),
    ],
)
def test_a_row_that_would_be_read_as_another_is_a_finding(tmp_path: Path, columns: str, reason: str) -> None:
    rows: list[dict[str, Any] | str] = [row(0), json.dumps(row(1)).replace("{", "{" + columns, 1), row(2)]
    found = checked(write(tmp_path / "pairs", rows), tmp_path / "out")
    assert dict(found.rows) == {"row": [2]} and found.reason("row") == reason


@pytest.mark.parametrize(
    ("packed", "name"), [(gzip.compress, "gzip"), (lambda data: data.decode().encode("utf-16"), "UTF-16")]
)
def test_a_file_that_is_no_utf_8_text_is_refused_by_its_name(
    tmp_path: Path, packed: Callable[[bytes], bytes], name: str
) -> None:
    place = write(tmp_path / "pairs", [row(n) for n in range(3)])
    (place / "pairs.jsonl").write_bytes(packed((place / "pairs.jsonl").read_bytes()))
    with pytest.raises(InputError, match=rf"pairs\.jsonl is {name} "):
        checked(place, tmp_path / "out")


def test_a_reason_repeats_no_long_value(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        row(0, images=["x" * 300_000]),
        row(1, images=["iVBORw0KGgo" + "A" * 300_000]),
        row(2, **{"k" * 300_000: 1}),
        row(3, prompt=["p" * 300_000]),
        row(4),
    ]
    found = checked(write(tmp_path / "pairs", rows), tmp_path / "out")
    assert dict(found.rows) == {"image-path": [1, 2], "row": [3, 4]}
    assert all(len(finding.reason) < 400 for finding in found.findings)


def test_an_endless_line_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.check.row_reader.MAX_LINE", 1000)
    found = checked(write(tmp_path / "pairs", [row(0), "x" * 5432, row(2)]), tmp_path / "out")
    assert dict(found.rows) == {"row": [2]} and "longer than 1000 bytes" in found.reason("row")
    assert found.report.rows == 3


def test_damaged_images_are_found_in_every_row_that_has_them(tmp_path: Path) -> None:
    rows = [row(n, images=[f"images/{n % 3}.png"]) for n in range(6)]
    dataset = write(tmp_path / "pairs", [*rows])
    image = dataset / "images/1.png"
    image.write_bytes(image.read_bytes()[:300])
    (dataset / "images/2.png").write_bytes(b"")
    found = checked(dataset, tmp_path / "out")
    assert found.rows["image-damaged"] == [2, 3, 5, 6]
    assert found.report.images == 3 and found.report.distinct_images == 1


def test_remote_images_may_be_allowed_and_are_not_opened(tmp_path: Path) -> None:
    rows = [row(n, images=[f"https://example.org/{n}.png"]) for n in range(4)]
    found = checked(write(tmp_path / "pairs", [*rows]), tmp_path / "out", settings={"allow_remote": True})
    assert found.rows["image-remote"] == [1, 2, 3, 4] and found.line("image-remote").verdict == "look"
    assert found.line("give-away: words").n == 4, "texts are measured all the same"


def test_repeated_rows(tmp_path: Path) -> None:
    rows = [row(n) for n in range(8)]
    rows[4] = {**rows[1], "id": "again", "chosen": rows[1]["chosen"].upper()}
    long = {"chosen": f"{LETTERS}, and there is a lamp.", "rejected": f"{LETTERS.replace('cup', 'dog')}, in the rain."}
    rows[5] = row(5, **long)
    rows[6] = row(6, **{**long, "chosen": f"{LETTERS}, and there is a lamp!!"}, images=["images/5.png"])
    rows[6]["prompt"] = rows[5]["prompt"]
    rows[6]["rejected"] += " Now."
    rows[7] = {**rows[0], "id": "turned", "chosen": rows[0]["rejected"], "rejected": rows[0]["chosen"]}
    found = checked(write(tmp_path / "pairs", [*rows]), tmp_path / "out", settings={"text_distance": 5})
    assert found.rows["duplicate"] == [5] and found.reason("duplicate") == "row 2 is the same"
    assert found.rows["near-duplicate"] == [7] and found.reason("near-duplicate") == "much like row 6"
    assert found.rows["contradiction"] == [1, 8]
    assert found.report.removable == 3, "what is only nearly the same is left to people"


def test_the_same_texts_with_another_picture_are_no_duplicate(tmp_path: Path) -> None:
    rows = [row(n) for n in range(4)]
    rows[2] = {**rows[1], "id": "other", "images": ["images/2.png"]}
    found = checked(write(tmp_path / "pairs", [*rows]), tmp_path / "out")
    assert dict(found.rows) == {"text-repeated": [2, 3]} and found.report.removable == 0


def test_a_good_row_is_not_the_repetition_of_a_bad_one(tmp_path: Path) -> None:
    rows = [row(0, images=[]), row(1, images=[])]
    rows[0]["chosen"] = rows[0]["rejected"] = "Yes."
    rows[1] = {**rows[0], "id": "b"}
    found = checked(write(tmp_path / "pairs", [*rows, row(2)]), tmp_path / "out")
    assert set(found.rows) == {"equal"}


def test_pictures_under_several_names(tmp_path: Path) -> None:
    dataset = write(tmp_path / "pairs", [row(n) for n in range(5)])
    (dataset / "images/1.png").write_bytes((dataset / "images/0.png").read_bytes())
    picture(2).resize((60, 45)).save(dataset / "images/3.png")
    found = checked(dataset, tmp_path / "out")
    assert dict(found.rows) == {"image-copy": [1, 2], "image-alike": [3, 4]}
    assert found.report.removable == 0


def test_a_number_makes_another_row(tmp_path: Path) -> None:
    """Sixty questions on one picture that differ in numbers alone."""
    rows = [row(n, images=["images/0.png"]) for n in range(60)]
    found = checked(write(tmp_path / "pairs", [*rows], pictures=1), tmp_path / "out")
    assert found.findings == []


def test_rows_on_a_resized_picture_are_near_duplicates(tmp_path: Path) -> None:
    rows = [row(0), {**row(0), "id": "b", "images": ["images/1.png"]}]
    dataset = write(tmp_path / "pairs", [*rows])
    picture(0).resize((60, 45)).save(dataset / "images/1.png")
    assert checked(dataset, tmp_path / "out").rows["near-duplicate"] == [2]


def test_workers_find_what_one_process_finds(tmp_path: Path) -> None:
    dataset = write(tmp_path / "pairs", [row(n) for n in range(12)])
    (dataset / "images/3.png").write_bytes(b"no image")
    Image.new("RGB", (30, 30), "red").save(dataset / "images/7.png")
    one, several = (checked(dataset, tmp_path / f"out-{n}", workers=n) for n in (1, 2))
    assert one.report == several.report and one.findings == several.findings
    assert one.rows == {"image-damaged": [4], "image-blank": [8]}


@pytest.mark.parametrize("content", [None, "", "\n\n"])
def test_no_rows_are_refused(tmp_path: Path, content: str | None) -> None:
    tmp_path.joinpath("pairs").mkdir()
    if content is not None:
        (tmp_path / "pairs/pairs.jsonl").write_text(content)
    with pytest.raises(InputError, match="holds no rows" if content is not None else "holds neither"):
        checked(tmp_path / "pairs", tmp_path / "out")


def test_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[dict[str, Any] | str] = [row(n, images=[f"images/{n % 4}.png"]) for n in range(10)]
    rows[6] = "bad"
    rows[8] = row(3, id="again", images=["images/3.png"])
    dataset = write(tmp_path / "pairs", rows, pictures=3)
    results: list[Checked] = []
    for size in (256, 1, 3):
        monkeypatch.setattr("sightline.check.run._BLOCK", size)
        results.append(checked(dataset, tmp_path / f"out-{size}"))
    assert results[0].findings == results[1].findings == results[2].findings != []
    assert results[0].report == results[1].report == results[2].report
