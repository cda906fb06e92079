"""CHAIR by hand: mentions and objects, double words, the faults of the official script, truth from COCO's files."""

import json
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.benches.coco_objects import SYNONYMS, chair_vocabulary, read_truth
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.offline_scoring import ScoredFile, score_file
from sightline.evals.registry import get_benchmark
from sightline.records.rows import Answer

VOCABULARY = chair_vocabulary()
OWN = "the synonyms are our own list; for the published figures give the owners' with --synonyms"


def objects(text: str) -> list[str]:
    return [mention.object for mention in VOCABULARY.mentions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Two men and a woman ride bikes.", ["person", "person", "bicycle"]),
        ("A baby elephant and an adult zebra.", ["elephant", "zebra"]),
        ("A baby and an elephant.", ["person", "elephant"]),
        ("A passenger jet, a passenger train; a passenger.", ["airplane", "train", "person"]),
        ("hot dogs, a hot. dog", ["hot dog", "dog"]),
        ("a train on a train track", ["train"]),
        ("the home plate", []),
        ("a bow tie and a traffic light near a stop sign", ["tie", "traffic light", "stop sign"]),
        ("a wine glass, two wine glasses, a glass", ["wine glass", "wine glass"]),
        # "sports" and "tennis" lose their s, so these double words never meet, and the second word speaks alone.
        ("a sports ball and a tennis racket", ["sports ball", "tennis racket"]),
        ("a toilet seat", ["toilet"]),
        ("the seat of the toilet", ["toilet"]),
        ("the seat of the urinal", ["chair", "toilet"]),
        ("a seat by a seat", ["chair", "chair"]),
        # The script's faults: bus becomes bu, ties become ty, canoes cano, doggies stay.
        ("a bus, buses, ties, a tie, canoes, a canoe", ["bus", "tie", "boat"]),
        ("a wine-glass, **dog**, cat/dog, dog.cat", ["dog"]),
        ("A cell phone on a dining table. A laptop computer.", ["cell phone", "dining table", "laptop"]),
        ("no dog here", ["dog"]),  # a denial is a mention
        # NLTK up to 3.9.1 leaves a dash and an opening quotation mark at the word.
        ("A man stands\u2014a dog sits; a sign says 'Dog' to cats\u2013horses", ["person", "dog"]),
    ],
)
def test_objects(text: str, expected: list[str]) -> None:
    assert objects(text) == expected


def test_spans_mark_both_words_of_a_double_word() -> None:
    text = "A wine glass. A Dog's bowl."
    assert [text[slice(*mention.span)] for mention in VOCABULARY.mentions(text)] == ["wine glass", "Dog", "bowl"]


def test_spans_stand_though_a_letter_grows_in_lower_case() -> None:
    text = "\u0130stanbul: a dog"  # its lower case has two characters
    assert [text[slice(*mention.span)] for mention in VOCABULARY.mentions(text)] == ["dog"]


def test_our_synonyms_name_the_80_objects_once() -> None:
    lines = SYNONYMS.read_text().splitlines()
    words = [word for line in lines for word in line.split(", ")]
    assert len(lines) == 80 and len(set(words)) == len(words)
    assert all(word == word.strip() == word.lower() for word in words)


def test_every_object_is_found_by_its_plural_or_its_name() -> None:
    lost = {
        name
        for name in set(VOCABULARY.objects.values())
        if name not in objects(f"a {name}") and name not in objects(f"many {name}s")
    }
    assert lost == set()


def test_a_list_of_the_user_is_read_as_the_official_script_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("cake,  cheesecake, cupcake\ncell phone, phone, iPhone \n\nperson, people, man\n")
    vocabulary = chair_vocabulary(path)
    # Two blanks leave one in the word, and capital letters never meet text in lower case.
    assert [m.object for m in vocabulary.mentions("a cheesecake, cupcakes, an iPhone, people")] == ["cake", "person"]


def annotations(folder: Path) -> Path:
    """Three pictures in COCO's layout: 1 has a dog and a person, 2 a cat, 3 nothing annotated."""
    folder.mkdir(exist_ok=True)
    names = {1: "person", 17: "cat", 18: "dog", 67: "dining table"}
    images = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in (1, 2, 3)]
    instances = {
        "images": images,
        "categories": [{"id": i, "name": name} for i, name in names.items()],
        "annotations": [{"image_id": 1, "category_id": c} for c in (1, 18, 18)] + [{"image_id": 2, "category_id": 17}],
    }
    texts = [(1, "A man walks his puppy past a bench."), (2, "A kitten under a desk."), (3, "An empty road.")]
    captions = {"images": images, "annotations": [{"image_id": i, "caption": text} for i, text in texts]}
    (folder / "instances_val2014.json").write_text(json.dumps(instances))
    (folder / "captions_val2014.json").write_text(json.dumps(captions))
    return folder


# Truth: 1 = {person, dog, bench}, 2 = {cat, dining table}, 3 = {}.
CAPTIONS: list[dict[str, Any]] = [
    # person, dog, car, dog, car: 5 mentions, 2 absent; found person, dog of 3
    {"image_id": 1, "caption": "A woman and a dog by a car. The dog looks at the car."},
    # cat, dining table: 2 mentions, none absent; found 2 of 2
    {"image_id": "COCO_val2014_000000000002.jpg", "caption": "A cat on a table."},
    # bird: 1 mention, absent; nothing to find
    {"image_id": "000000000003", "caption": "A bird on a road."},
]


def scored(data: Path, rows: list[dict[str, Any]], tmp_path: Path, **options: Any) -> ScoredFile:
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return score_file("chair", path, BenchmarkOptions(data, **options), resamples=100)


def values(result: ScoredFile) -> dict[str, float | None]:
    return {name: result.estimates[name].value for name in ("chair_s", "chair_i", "recall")}


def test_scores_by_hand(tmp_path: Path) -> None:
    result = scored(annotations(tmp_path / "coco"), CAPTIONS, tmp_path)
    assert values(result) == {"chair_s": 2 / 3, "chair_i": 3 / 8, "recall": 4 / 5}
    assert result.estimates["chair_s"].n == 3 and result.notes == (OWN,)


def test_every_caption_of_a_picture_counts(tmp_path: Path) -> None:
    """The second caption of 1 names a dog, of 2 a dog that is absent; a third one of 1 names nothing.

    Sentences 3 of 6 with an absent object; mentions 4 absent of 10; found 4 + 1 + 0 + 0 of 5 + 3 + 2 + 3.
    """
    more: list[dict[str, Any]] = [
        {"image_id": 2, "caption": "A dog."},
        {"image_id": 1, "caption": "A dog."},
        {"image_id": "COCO_val2014_000000000001.jpg", "caption": "A road."},
    ]
    data, out = annotations(tmp_path / "coco"), tmp_path / "out"
    for rows in ([*CAPTIONS, *more], [*more, *CAPTIONS]):
        result = scored(data, rows, tmp_path)
        assert values(result) == pytest.approx({"chair_s": 3 / 6, "chair_i": 4 / 10, "recall": 5 / 13})
        assert result.estimates["chair_s"].n == 6
        assert result.notes == ("3 answers are to samples with several answers; each is scored", OWN)
    path = tmp_path / "captions.jsonl"
    kept = score_file("chair", path, BenchmarkOptions(data), out=out, resamples=100)
    assert values(kept) == values(result)
    ids = [json.loads(line)["sample_id"] for line in (out / "chair/scores.jsonl").read_text().splitlines()]
    assert ids == ["1", "1#2", "1#3", "2", "2#2", "3"]
    clusters = [json.loads(line)["cluster"] for line in (out / "chair/scores.jsonl").read_text().splitlines()]
    assert clusters == ["1", "1", "1", "2", "2", "3"]


def test_pictures_that_nobody_described_are_not_missing(tmp_path: Path) -> None:
    result = scored(annotations(tmp_path / "coco"), CAPTIONS[:1], tmp_path)
    assert values(result) == {"chair_s": 1, "chair_i": 2 / 5, "recall": 2 / 3}
    assert (result.estimates["chair_i"].n, result.estimates["chair_i"].unscored) == (1, 0) and result.notes == (OWN,)


def test_truth_of_a_plain_json_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "truth").mkdir()
    truth = {"1": ["person", "dog", "bench"], "COCO_val2014_000000000002.jpg": ["cat", "table"], "3": []}
    path = tmp_path / "truth" / "objects.json"
    path.write_text(json.dumps(truth))
    for data in (path, path.parent):  # the file itself, or its folder
        assert values(scored(data, CAPTIONS, tmp_path)) == {"chair_s": 2 / 3, "chair_i": 3 / 8, "recall": 4 / 5}


def test_outlines_take_no_memory(tmp_path: Path) -> None:
    """Most of COCO's files are outlines: beside the bytes and their text, almost nothing is held while parsing."""
    folder = annotations(tmp_path / "coco")
    path = folder / "instances_val2014.json"
    value = json.loads(path.read_text())
    outline = [[number / 7 for number in range(500)]]
    path.write_text(
        json.dumps(value | {"annotations": [row | {"segmentation": outline} for row in value["annotations"] * 80]})
    )
    tracemalloc.start()
    pictures = read_truth("chair", folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pictures["1"].objects == ["person", "dog", "dog"] * 80 and pictures["2"].objects == ["cat"] * 80
    assert pictures["1"].captions == ["A man walks his puppy past a bench."] and pictures["3"].objects == []
    assert peak < 2.5 * path.stat().st_size


def test_a_list_of_the_user_replaces_ours_without_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("person, woman\ndog\ncat\ndining table, table\n")
    result = scored(annotations(tmp_path / "coco"), CAPTIONS, tmp_path, synonyms=path)
    # Truth: {person, dog}, {cat}, {}. Of "man", "puppy", "desk", "car" and "bird" this list knows nothing.
    assert values(result) == {"chair_s": 1 / 3, "chair_i": 1 / 5, "recall": 1} and result.notes == ()


def test_the_official_layout_of_captions_is_read(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    rows = {str(number): row for number, row in enumerate(CAPTIONS)}
    path.write_text(json.dumps({"overall": {}, "imgToEval": rows}))
    result = score_file("chair", path, BenchmarkOptions(annotations(tmp_path / "coco")), resamples=100)
    assert values(result) == {"chair_s": 2 / 3, "chair_i": 3 / 8, "recall": 4 / 5}


def test_spans_of_absent_objects_are_kept_for_the_report(tmp_path: Path) -> None:
    benchmark = get_benchmark("chair", BenchmarkOptions(annotations(tmp_path / "coco")))
    sample = next(iter(benchmark.samples()))
    text = CAPTIONS[0]["caption"]
    answer = Answer(sample_id=sample.id, cluster=sample.cluster, text=text, tokens=1, finished=True)
    details = benchmark.score(sample, answer).details
    assert [text[start:end] for start, end in details["hallucinated"]] == ["car", "car"]
    assert sample.images == ("COCO_val2014_000000000001.jpg",) and details["absent"] == ["car"]


def test_no_mention_leaves_chair_i_undefined_and_not_zero(tmp_path: Path) -> None:
    result = scored(annotations(tmp_path / "coco"), [{"image_id": 3, "caption": ""}], tmp_path)
    assert values(result) == {"chair_s": 0, "chair_i": None, "recall": None}


@pytest.mark.parametrize("absent", ["instances_val2014.json", "captions_val2014.json"])
def test_half_of_the_truth_is_named_with_its_source(tmp_path: Path, absent: str) -> None:
    data = annotations(tmp_path / "coco")
    (data / absent).unlink()
    with pytest.raises(InputError, match=rf"needs {absent} beside .*cocodataset\.org"):
        scored(data, CAPTIONS, tmp_path)


def test_a_folder_without_truth_is_named_with_the_source(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"needs instances_val2014\.json and captions_val2014\.json in .*cocodataset"):
        scored(tmp_path / "empty", CAPTIONS, tmp_path)


def test_the_official_pickle_is_refused_with_what_to_give(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "chair.pkl").write_bytes(pickle.dumps({1: {"dog"}}))
    for place in (folder / "chair.pkl", folder):
        with pytest.raises(
            InputError, match=r"chair\.pkl is a Python pickle.*instances_val2014\.json.*cocodataset\.org"
        ):
            scored(place, CAPTIONS, tmp_path)


def test_another_json_in_the_folder_is_not_taken_for_the_truth(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "results.json").write_text(json.dumps({"runs": [1, 2]}))
    with pytest.raises(InputError, match=r"needs instances_val2014\.json and captions_val2014\.json"):
        scored(tmp_path / "coco", CAPTIONS, tmp_path)


def test_answers_to_no_picture_of_the_truth_are_told(tmp_path: Path) -> None:
    rows = [*CAPTIONS, {"image_id": 99, "caption": "A dog."}]
    assert scored(annotations(tmp_path / "coco"), rows, tmp_path).notes == (
        f"1 answers match no sample of the benchmark ({tmp_path / 'captions.jsonl'} line 4 answers '99')",
        OWN,
    )


def test_the_command_scores_without_torch_and_keeps_an_evaluation(tmp_path: Path) -> None:
    data, out = annotations(tmp_path / "coco"), tmp_path / "out"
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CAPTIONS[:2]))
    code = (
        "import sys, sightline.cli as cli\n"
        f"sys.argv = ['sightline', 'score', 'chair', '--answers', {str(tmp_path / 'answers.jsonl')!r}, '--data', "
        f"{str(data)!r}, '--json', '--resamples', '100', '--out', {str(out)!r}]\n"
        "try:\n    cli.main()\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["chair_i"]["value"] == pytest.approx(2 / 7)
    assert len((out / "chair" / "samples.jsonl").read_text().splitlines()) == 2
