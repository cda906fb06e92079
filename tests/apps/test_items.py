"""Items to label: pairs, answers of two evaluations, skipped items, and unsuitable directories."""

from collections.abc import Callable
from pathlib import Path

import pytest

from sightline.apps.label.items import ItemSource, open_labels
from sightline.apps.label.session import LabelConfig
from sightline.errors import InputError
from sightline.records import Answer, Pair, Sample, write_json, write_rows


def write_pairs(folder: Path, texts: list[tuple[str, str]]) -> None:
    rows = (
        Pair(id=f"p{n}", images=("one.png",), prompt="?", chosen=a, rejected=b, builder="x", cluster="c")
        for n, (a, b) in enumerate(texts)
    )
    write_rows(folder / "pairs.jsonl", rows)


def evaluation(folder: Path, bench: str, answers: dict[str, str], image: str = "../../pictures/one.png") -> Path:
    samples = [Sample(id=name, images=(image,), prompt=f"What of {name}?", cluster="one") for name in answers]
    write_rows(folder / bench / "samples.jsonl", samples)
    rows = [Answer(sample_id=name, cluster="one", text=text) for name, text in answers.items()]
    write_rows(folder / bench / "answers.jsonl", rows)
    write_rows(folder / bench / "scores.jsonl", [])
    for name in ("metrics", "estimates"):
        write_json(folder / bench / f"{name}.json", {})
    return folder


def test_pairs(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("pairs/one.png")
    write_pairs(tmp_path / "pairs", [("A car.", "A dog."), ("Same.", " Same. "), ("A tree.", "A house.")])
    source = ItemSource((tmp_path / "pairs",))
    assert source.labels == tmp_path / "pairs-labels"
    opened = open_labels(source, tmp_path / "labels", LabelConfig(), 0)
    assert opened.dropped == {"both answers are the same": 1}
    first, second = opened.items.values()
    assert (first.id, first.first.id, first.first.text, first.second.id) == ("p0", "chosen", "A car.", "rejected")
    assert second.images == ("one.png",)
    assert (tmp_path / "labels" / "one.png").is_file()
    again = open_labels(source, tmp_path / "labels", LabelConfig(), 0)
    assert again.items == opened.items


def test_two_evaluations(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("pictures/one.png")
    base = evaluation(tmp_path / "base", "lab-chair", {"a": "A car.", "b": "A dog.", "c": "Nothing."})
    aligned = evaluation(tmp_path / "aligned", "lab-chair", {"a": "A tree.", "c": "", "d": "More."})
    source = ItemSource((base, aligned))
    assert source.labels == tmp_path / "base-aligned-labels"
    opened = open_labels(source, tmp_path / "labels", LabelConfig(), 0)
    (item,) = opened.items.values()
    assert (item.id, item.first.id, item.first.text) == ("a", "base", "A car.")
    assert (item.second.id, item.second.text) == ("aligned", "A tree.")
    assert opened.dropped == {"an answer is empty": 1}
    assert (tmp_path / "labels" / item.images[0]).read_bytes() == (tmp_path / "pictures" / "one.png").read_bytes()


def test_which_benchmark(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("pictures/one.png")
    for run, word in (("one", "car"), ("two", "dog")):
        for bench in ("lab-chair", "lab-vqa"):
            evaluation(tmp_path / run, bench, {"a": f"A {word}."})
    places = (tmp_path / "one", tmp_path / "two")
    with pytest.raises(InputError, match=r"share 2 benchmarks \(lab-chair, lab-vqa\); name one with --bench"):
        open_labels(ItemSource(places), tmp_path / "labels", LabelConfig(), 0)
    with pytest.raises(InputError, match="'pope' is not a benchmark of both evaluations"):
        open_labels(ItemSource(places, "pope"), tmp_path / "labels", LabelConfig(), 0)
    assert len(open_labels(ItemSource(places, "lab-vqa"), tmp_path / "labels", LabelConfig(), 0).items) == 1


def test_what_does_not_fit_is_said(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("pairs/one.png")
    write_pairs(tmp_path / "pairs", [("A car.", "A car.")])
    source = ItemSource((tmp_path / "pairs",))
    with pytest.raises(InputError, match=r"holds nothing to compare \(skipped: "):
        open_labels(source, tmp_path / "labels", LabelConfig(), 0)
    write_pairs(tmp_path / "pairs", [("A car.", "A dog."), ("A car.", "A tree.")])
    assert len(open_labels(source, tmp_path / "labels", LabelConfig(limit=1), 0).items) == 1
    with pytest.raises(InputError, match="limit there: 1, here: 2"):
        open_labels(source, tmp_path / "labels", LabelConfig(limit=2), 0)
    with pytest.raises(InputError, match="--bench needs two evaluations"):
        open_labels(ItemSource((tmp_path / "pairs",), "lab-vqa"), tmp_path / "other", LabelConfig(), 0)
