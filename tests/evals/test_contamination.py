"""Training data is recognized in a benchmark by image bytes, COCO id and question; generic questions are not."""

import shutil
from pathlib import Path

import pytest

from sightline.data.fingerprint import (
    FINGERPRINT,
    compute_fingerprint,
    picture_digest,
    read_fingerprint,
    write_fingerprint,
)
from sightline.errors import InputError
from sightline.evals.contamination import find_contamination, training_fingerprint
from sightline.records.rows import Sample
from tests.evals.shapes import ShapeBenchmark


@pytest.fixture
def benchmark(tmp_path: Path) -> ShapeBenchmark:
    return ShapeBenchmark("shapes-ask", tmp_path / "data", 4)


def test_pictures_are_known_by_their_bytes_whatever_their_names(benchmark: ShapeBenchmark, tmp_path: Path) -> None:
    samples = list(benchmark.samples())
    copied = tmp_path / "train.png"
    shutil.copy(benchmark.folder / samples[2].images[0], copied)
    seen = compute_fingerprint([([copied], "What is it?"), ([tmp_path / "absent.png"], "Where?")])
    leaks = find_contamination(samples, benchmark.folder, seen)
    assert (leaks.pictures, leaks.shared_pictures, leaks.shared_questions) == (4, 1, 0)
    assert leaks.warning("shapes") == (
        "shapes: 1 of 4 pictures are in the training pairs too; its numbers may flatter the model"
    )
    assert find_contamination(samples, benchmark.folder, compute_fingerprint([])).warning("shapes") is None


def test_coco_ids_and_questions_need_no_picture(tmp_path: Path) -> None:
    samples = [
        Sample(id="1", images=("COCO_val2014_000000000042.jpg",), prompt="Is it, though?", cluster="a"),
        Sample(id="2", images=("COCO_val2014_000000000043.jpg",), prompt="Describe the image.", cluster="b"),
        Sample(id="3", images=("COCO_val2014_000000000044.jpg",), prompt="Describe the image.", cluster="c"),
    ]
    seen = compute_fingerprint(
        [([tmp_path / "000000000042.jpg"], "<image>\nIS IT THOUGH"), ([tmp_path / "x.png"], "Describe the image.")]
    )
    leaks = find_contamination(samples, tmp_path, seen)
    assert (leaks.shared_pictures, leaks.questions, leaks.shared_questions) == (1, 1, 1)  # two are asked the same
    assert leaks.warning("b") is not None and "1 of 3 pictures and 1 of 1 questions" in str(leaks.warning("b"))


def test_it_is_kept_beside_the_adapter(benchmark: ShapeBenchmark, tmp_path: Path) -> None:
    samples = list(benchmark.samples())
    picture = benchmark.folder / samples[0].images[0]
    record = compute_fingerprint([([picture], "Is it?")])
    (tmp_path / "train" / "adapter").mkdir(parents=True)
    assert training_fingerprint(tmp_path / "train" / "adapter") is None and training_fingerprint(None) is None
    write_fingerprint(tmp_path / "train" / FINGERPRINT, record)
    assert (
        training_fingerprint(tmp_path / "train" / "adapter")
        == record
        == read_fingerprint(tmp_path / "train" / FINGERPRINT)
    )
    assert record.pictures == {picture_digest(picture.read_bytes())}
    (tmp_path / "train" / FINGERPRINT).write_bytes(b"no such thing")
    with pytest.raises(InputError, match=r"trained_on\.npz is not a fingerprint of training data"):
        training_fingerprint(tmp_path / "train" / "adapter")
