"""Sample directories: rows are streamed and checked, and each kind of invalid row is refused with its line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sightline.data.samples import read_samples, write_samples
from sightline.errors import InputError
from sightline.records import Sample, write_rows


def sample(name: str = "a", **changes: object) -> Sample:
    fields = {"images": ("images/a.png",), "prompt": "What is here?", "reference": "A cup.", "truth": {"n": [1, None]}}
    return Sample.model_validate({"id": name, **fields, **changes})


@pytest.fixture
def folder(tmp_path: Path, make_image: Callable[..., Path]) -> Path:
    make_image("images/a.png")
    return tmp_path


def refusal(folder: Path, *rows: Sample, require_reference: bool = False) -> str:
    write_rows(folder / "samples.jsonl", rows)
    with pytest.raises(InputError) as caught:
        list(read_samples(folder, require_reference=require_reference))
    return str(caught.value).replace(str(folder) + "/", "")


def test_written_samples_come_back_from_folder_and_file(folder: Path) -> None:
    rows = [sample("a"), sample("b", images=(), reference=None), sample("c", images=("images/a.png",) * 2)]
    assert write_samples(folder, iter(rows)) == 3
    assert list(read_samples(folder)) == rows
    assert list(read_samples(folder / "samples.jsonl")) == rows


def test_rows_before_a_bad_one_are_given_out(folder: Path) -> None:
    write_rows(folder / "samples.jsonl", [sample("a"), sample("b", prompt=" \n")])
    rows = read_samples(folder)
    assert next(rows) == sample("a")
    with pytest.raises(InputError):
        next(rows)


def test_bad_rows_are_named(folder: Path) -> None:
    assert refusal(folder, sample("a"), sample("b", prompt=" \n")) == (
        "samples.jsonl line 2 (id 'b'): the prompt is empty; write one or delete the row"
    )
    assert refusal(folder, sample("a"), sample("b"), sample("a")) == (
        "samples.jsonl line 3 (id 'a'): this id occurs twice; give it another"
    )
    assert refusal(folder, sample("")) == "samples.jsonl line 1 (id ''): the id is empty; give it another"
    assert refusal(folder, sample(images=("images/b.png",))) == (
        "samples.jsonl line 1 (id 'a'): image images/b.png does not exist; correct the path or drop the row"
    )
    assert "image path '../a.png' does not stay in" in refusal(folder, sample(images=("../a.png",)))
    (folder / "images" / "zero.png").touch()
    assert "image images/zero.png is empty (0 bytes)" in refusal(folder, sample(images=("images/zero.png",)))


@pytest.mark.parametrize("reference", [None, "", "  \n"])
def test_empty_reference_matters_where_one_is_needed(folder: Path, reference: str | None) -> None:
    row = sample(reference=reference)
    assert "the reference is empty and this command needs one" in refusal(folder, row, require_reference=True)
    assert list(read_samples(folder)) == [row]


def test_missing_file_fails_at_the_call(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"samples\.jsonl does not exist"):
        read_samples(tmp_path)
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_samples(tmp_path / "nowhere")


def test_row_that_is_no_json_is_named(folder: Path) -> None:
    (folder / "samples.jsonl").write_text("id,prompt\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"samples\.jsonl line 1: not JSON, 'id,prompt'"):
        list(read_samples(folder))


def test_writing_refuses_what_reading_would_and_keeps_the_old_file(folder: Path) -> None:
    write_samples(folder, [sample("a")])
    with pytest.raises(InputError, match="this id occurs twice"):
        write_samples(folder, [sample("b"), sample("b")])
    assert list(read_samples(folder)) == [sample("a")]
