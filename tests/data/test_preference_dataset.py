"""Directories of pairs: `datasets` opens them, and every row survives a round trip."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sightline.data.images import open_image
from sightline.data.preference_dataset import PARQUET, read_pairs, write_preference_dataset
from sightline.errors import InputError
from sightline.records import Pair, append_rows, write_rows

words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


def pair(name: str, *images: str, **changes: object) -> Pair:
    fields = {
        "prompt": "Describe the picture.",
        "chosen": "A cup.",
        "rejected": "A cup and a pan.",
        "builder": "bdhs",
        "cluster": "scene-1",
        "provenance": {"tries": 2, "seeds": [1, 2], "é": None},
    }
    return Pair.model_validate({"id": name, "images": images, **fields, **changes})


@pytest.fixture
def folder(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    """Three pairs with one, two and no images, and things beside them that belong to no dataset."""
    make_image("images/a.png", color="red")
    make_image("images/deep/b.jpg", size=(8, 8), color="blue")
    append_rows(
        tmp_path / "pairs.jsonl",
        [
            pair("1", "images/a.png"),
            pair("2", "images/deep/b.jpg", "images/a.png", media=("picture", "sound")),
            pair("3", prompt="Hi\n{%"),
        ],
    )
    (tmp_path / "manifest.json").write_text('{"stage": "pairs bdhs"}', encoding="utf-8")
    return tmp_path


def refusal(folder: Path, *rows: Pair) -> str:
    write_rows(folder / "pairs.jsonl", rows)
    with pytest.raises(InputError) as caught:
        write_preference_dataset(folder)
    assert not (folder / PARQUET).exists()
    return str(caught.value).replace(str(folder) + "/", "")


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """`datasets` keeps what it loaded by the names of folder and configuration."""
    from datasets import load_dataset

    for parent, count in (("a", 3), ("b", 5)):
        folder = tmp_path / parent / "pairs"
        folder.mkdir(parents=True)
        append_rows(folder / "pairs.jsonl", [pair(str(number)) for number in range(count)])
        write_preference_dataset(folder)
        rows = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        assert rows["id"][:] == [str(number) for number in range(count)]


def test_datasets_opens_the_folder_with_pictures(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from datasets import load_dataset

    assert write_preference_dataset(folder) == 3
    cache = str(tmp_path_factory.mktemp("cache"))
    opened = load_dataset(str(folder), cache_dir=cache)
    assert list(opened) == ["train"]
    rows = opened["train"]
    assert rows.column_names[:4] == ["images", "prompt", "chosen", "rejected"]
    assert rows.column_names[4:8] == ["id", "cluster", "builder", "provenance"]
    assert rows.column_names[8:] == ["second_rejected", "chosen_spans", "rejected_spans", "media"]
    assert len(rows) == 3
    for row, expected in zip(rows, read_pairs(folder), strict=True):
        assert all(isinstance(image, Image.Image) for image in row["images"])
        for image, name in zip(row["images"], expected.images, strict=True):
            with Image.open(folder / name) as original:
                assert np.array_equal(np.asarray(image), np.asarray(original))
        entries = row["prompt"][0]["content"]
        assert [message["role"] for message in row["prompt"]] == ["user"]
        assert [entry["type"] for entry in entries] == ["image"] * len(expected.images) + ["text"]
        assert entries[-1] == {"type": "text", "text": expected.prompt}
        for column in ("chosen", "rejected"):
            answer = getattr(expected, column)
            assert row[column] == [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]
        assert json.loads(row["provenance"]) == expected.provenance
        assert (row["id"], row["cluster"], row["builder"]) == (expected.id, "scene-1", "bdhs")


def test_the_dataset_streams(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from datasets import load_dataset

    write_preference_dataset(folder)
    rows = load_dataset(str(folder), split="train", streaming=True, cache_dir=str(tmp_path_factory.mktemp("cache")))
    assert [row["id"] for row in rows] == ["1", "2", "3"]


def test_pairs_come_back_from_the_parquet_alone(folder: Path) -> None:
    expected = list(read_pairs(folder))
    write_preference_dataset(folder)
    (folder / "pairs.jsonl").unlink()
    assert list(read_pairs(folder)) == expected  # the image files are there still
    shutil.rmtree(folder / "images")
    extracted = list(read_pairs(folder))
    assert [row.model_copy(update={"images": ()}) for row in extracted] == [
        row.model_copy(update={"images": ()}) for row in expected
    ]
    sizes = [[open_image(folder / name, "").size for name in row.images] for row in extracted]
    assert sizes == [[(24, 16)], [(8, 8), (24, 16)], []]
    assert extracted[0].images[0] == extracted[1].images[1]  # one file for one content
    assert len(list((folder / "images").iterdir())) == 2


def test_embedded_image_is_not_taken_for_another_file_of_its_name(
    folder: Path, make_image: Callable[..., Path]
) -> None:
    write_preference_dataset(folder)
    (folder / "pairs.jsonl").unlink()
    make_image("images/a.png", size=(5, 5))
    name = next(read_pairs(folder)).images[0]
    assert name != "images/a.png"
    assert open_image(folder / name, "").size == (24, 16)


def test_same_pairs_make_the_same_bytes(folder: Path) -> None:
    write_preference_dataset(folder)
    first = [(folder / name).read_bytes() for name in (PARQUET, "README.md")]
    write_preference_dataset(folder)
    assert [(folder / name).read_bytes() for name in (PARQUET, "README.md")] == first
    assert [path.name for path in folder.rglob(".*")] == []


def test_rows_are_written_in_groups_of_bounded_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.data.preference_dataset._GROUP_ROWS", 4)
    write_rows(folder / "pairs.jsonl", (pair(str(index), "images/a.png") for index in range(10)))
    assert write_preference_dataset(folder) == 10
    with pq.ParquetFile(folder / PARQUET) as file:
        assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [4, 4, 2]


def test_no_pairs_make_an_empty_dataset(folder: Path) -> None:
    (folder / "pairs.jsonl").write_bytes(b"")
    assert write_preference_dataset(folder) == 0
    (folder / "pairs.jsonl").unlink()
    assert list(read_pairs(folder)) == []


def test_bad_pairs_are_named(folder: Path) -> None:
    assert refusal(folder, pair("1"), pair("2", rejected=" ")) == (
        "pairs.jsonl line 2 (id '2'): 'rejected' is empty; write it or delete the row"
    )
    assert "line 1 (id '1'): 'prompt' is empty" in refusal(folder, pair("1", prompt=""))
    assert "line 2 (id '1'): this id occurs twice" in refusal(folder, pair("1"), pair("1"))
    assert "image path '/etc/hosts' does not stay in" in refusal(folder, pair("1", "/etc/hosts"))
    assert "image images/x.png does not exist" in refusal(folder, pair("1", "images/x.png"))
    damaged = folder / "images" / "damaged.png"
    damaged.write_bytes((folder / "images" / "a.png").read_bytes()[:60])
    assert "(id '1'): image images/damaged.png is truncated or damaged" in refusal(
        folder, pair("1", "images/damaged.png")
    )


def test_a_failed_write_keeps_the_dataset_that_was_there(folder: Path) -> None:
    write_preference_dataset(folder)
    before = (folder / PARQUET).read_bytes()
    append_rows(folder / "pairs.jsonl", [pair("4", "images/nowhere.png")])
    with pytest.raises(InputError):
        write_preference_dataset(folder)
    assert (folder / PARQUET).read_bytes() == before
    assert [path.name for path in (folder / "data").iterdir()] == [Path(PARQUET).name]


def test_directory_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither pairs\.jsonl nor data/\*\.parquet"):
        read_pairs(tmp_path)
    with pytest.raises(InputError, match=r"pairs\.jsonl does not exist; build pairs first"):
        write_preference_dataset(tmp_path)


def test_foreign_and_broken_parquet(tmp_path: Path) -> None:
    import pyarrow as pa

    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "train.parquet"
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(InputError, match=r"train\.parquet cannot be read as Parquet"):
        list(read_pairs(tmp_path))
    pq.write_table(pa.table({"question": ["a"]}), path)
    with pytest.raises(InputError, match=r"train\.parquet row 1 .* not a row of Sightline's preference columns"):
        list(read_pairs(tmp_path))


def test_reading_samples_and_pairs_does_not_import_datasets() -> None:
    """It takes a second, and only writing needs it."""
    import subprocess

    code = "import sys, sightline.data.samples, sightline.data.preference_dataset; sys.exit('datasets' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=15)
@given(st.lists(st.tuples(words, words, words), max_size=4))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[tuple[str, str, str]]) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    rows = [
        pair(str(index), prompt=prompt, chosen=chosen, rejected=rejected)
        for index, (prompt, chosen, rejected) in enumerate(texts)
    ]
    write_rows(folder / "pairs.jsonl", rows)
    write_preference_dataset(folder)
    (folder / "pairs.jsonl").unlink()
    assert list(read_pairs(folder)) == rows
