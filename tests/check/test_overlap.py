"""Overlap with benchmarks by image bytes, by similar image, by COCO id, by question."""

import json
from pathlib import Path

import pytest

from sightline.check.overlap import source_from_path, source_from_samples
from sightline.data.images import coco_id
from sightline.errors import InputError
from sightline.records import Sample
from tests.check.datasets import checked, picture, row, write


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("COCO_val2014_000000391895.jpg", 391895),
        ("images/COCO_train2014_000000000009.jpg", 9),
        ("coco/val2017/000000391895.jpg", 391895),
        ("000000391895.png", 391895),
        ("1000000391895.jpg", 0),
        ("391895.jpg", 0),
        ("000000391895", 0),
        ("VG_000000391895.jpg", 0),
    ],
)
def test_coco_ids(name: str, number: int) -> None:
    assert coco_id(name) == number


def test_a_folder_of_pictures_with_a_list(tmp_path: Path) -> None:
    rows = [row(n) for n in range(6)]
    rows[4]["images"] = ["images/COCO_train2014_000000000042.png"]
    rows[5]["prompt"] = "is there a DOG in the image"
    dataset = write(tmp_path / "pairs", [*rows])
    picture(4).save(dataset / "images/COCO_train2014_000000000042.png")
    bench = tmp_path / "bench"
    (bench / "deep").mkdir(parents=True)
    (bench / "deep/a.png").write_bytes((dataset / "images/1.png").read_bytes())
    picture(2).resize((70, 50)).save(bench / "b.jpg", quality=80)
    picture(77).save(bench / "c.png")
    (bench / "broken.png").write_bytes(b"nothing")
    question = {"question_id": 1, "image": "COCO_val2014_000000000042.jpg", "text": "Is there a dog in the image?"}
    (bench / "pope.json").write_text(json.dumps(question) + "\n")
    found = checked(dataset, tmp_path / "out", against=(source_from_path(bench),))
    assert dict(found.rows) == {
        "overlap-image": [2],
        "overlap-alike": [3],
        "overlap-coco": [5],
        "overlap-question": [6],
    }
    assert found.line("overlap-image", "bench").verdict == "bad"
    assert found.line("overlap-question", "bench").verdict == "look"
    assert found.report.removable == 3, "a question alone removes nothing"
    assert found.report.numbers == {"bench: unreadable pictures": 1}


def test_several_copies_of_a_picture_are_all_found(tmp_path: Path) -> None:
    dataset = write(tmp_path / "pairs", [row(n) for n in range(5)])
    for number, side in ((1, 60), (2, 61), (3, 62)):
        picture(0).resize((side, side * 3 // 4)).save(dataset / f"images/{number}.png")
    picture(0).resize((120, 90)).save(tmp_path / "one.png")
    found = checked(dataset, tmp_path / "out", against=(source_from_path(tmp_path / "one.png"),))
    assert found.rows["overlap-alike"] == [1, 2, 3, 4]


def test_samples_and_a_json_list(tmp_path: Path) -> None:
    dataset = write(tmp_path / "pairs", [row(n) for n in range(3)])
    samples = [Sample(id="s", images=("images/1.png",), prompt=row(0)["prompt"])]
    (tmp_path / "list.json").write_text(json.dumps([{"question": row(2)["prompt"]}]))
    against = (source_from_samples("lab", lambda: dataset, lambda: samples), source_from_path(tmp_path / "list.json"))
    found = checked(dataset, tmp_path / "out", against=against)
    assert [(finding.of, finding.check, finding.row) for finding in found.findings] == [
        ("lab", "overlap-question", 1),
        ("lab", "overlap-image", 2),
        ("list.json", "overlap-question", 3),
    ]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", '{"text": "x"}\nbad\n', "a.jsonl line 2 is not JSON"),
        ("a.json", "[1]", "entry 1: not a JSON object"),
        ("a.jsonl", '{"image": 5}\n', "the image is '5'"),
        ("a.jsonl", "{}\n", "has neither images nor questions"),
        ("a.txt", "x", "is not a folder, an image"),
    ],
)
def test_a_bad_benchmark_is_refused(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content)
    dataset = write(tmp_path / "pairs", [row(0)])
    with pytest.raises(InputError, match=sentence):
        checked(dataset, tmp_path / "out", against=(source_from_path(tmp_path / name),))
