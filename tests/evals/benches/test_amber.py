"""AMBER by hand: its order of targets, its denominators, F1 of rounded percents, nouns without the official tools."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.cli import app
from sightline.errors import InputError
from sightline.evals.benches.amber import Lists, classify_nouns, type_groups
from sightline.evals.benches.amber_nouns import NounTools, installed_tools, nltk_nouns, rule_nouns
from sightline.evals.benches.singular import lemma
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.offline_scoring import ScoredFile, score_file
from sightline.evals.registry import get_benchmark
from sightline.records.rows import Answer

EXTRACTS = Path(os.environ.get("SIGHTLINE_EXTRACTS", Path(__file__).parents[4] / "shared" / "data"))
ASSOCIATION: dict[str, list[str]] = {
    "person": ["people", "man", "woman"],
    "man": ["person", "boy"],
    "forest": ["tree", "bush"],
    "tree": ["forest", "bush"],
    "dog": [],
    "sky": [],
    "boat": ["ship"],
    "lamp": ["light"],
    "can": [],
    "watch": [],
}
LISTS = Lists(ASSOCIATION, frozenset({"light", ""}))
PLAIN = NounTools(rule_nouns, None, official_nouns=False)


def alike(one: str, other: str) -> bool:
    return {one, other} in ({"ship", "tree"}, {"dog", "person"}) or one == other


def test_an_association_is_found_before_the_word_itself() -> None:
    # Targets of the truth: people, man, woman -> 0; person, boy -> 1; then person -> 0, man -> 1.
    verdict = classify_nouns(["man", "person"], ["person", "man"], [], LISTS, PLAIN)
    assert verdict.absent == (False, False)
    assert verdict.covered == {0, 1}  # "man" names the person, "person" the man
    assert classify_nouns(["man"], ["person", "man"], [], LISTS, PLAIN).covered == {0}


def test_a_repeated_true_object_is_covered_once() -> None:
    assert classify_nouns(["boat", "boat"], ["boat", "boat"], [], LISTS, PLAIN).covered == {0}


def test_safe_words_are_neither_absent_nor_a_cover() -> None:
    verdict = classify_nouns(["light"], ["lamp"], ["lamp"], LISTS, PLAIN)
    assert (verdict.absent, verdict.covered, verdict.expected) == ((False,), frozenset(), frozenset())


def test_an_expected_hallucination_is_absent_and_named() -> None:
    verdict = classify_nouns(["dog", "tree"], ["sky"], ["sky", "dog"], LISTS, PLAIN)
    assert verdict.absent == (True, True) and verdict.expected == {1}


def test_a_like_word_is_present_and_may_be_expected_besides() -> None:
    tools = NounTools(rule_nouns, alike, official_nouns=False)
    # "dog" is like "person" (true object 0), and equals the expected hallucination 1.
    verdict = classify_nouns(["dog"], ["person"], ["sky", "dog"], LISTS, tools)
    assert verdict.absent == (False,) and verdict.covered == {0} and verdict.expected == {1}
    # "ship" equals an association of boat (1) and is like one of forest (0), which comes first: the script marks both.
    assert classify_nouns(["ship"], [], ["forest", "boat"], LISTS, tools).expected == {0, 1}


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("Two dogs and a man under trees.", ["dog", "man", "tree"]),
        ("Dogs bark; a dog, Man.", ["dog"]),  # capital letters are not AMBER's words
        ("The men and women, people.", ["woman", "people"]),  # for WordNet "men" is a word of its own
        ("It can be seen. A can and two cans, a trash can.", ["can", "can", "can"]),
        ("They watch a dog to watch the watch.", ["dog", "watch"]),
        ("A man watches the dog; trees watch their dog.", ["man", "dog", "tree", "dog"]),
        ("He put on the watch the man had; watches.", ["watch", "man", "watch"]),
        ("A bear.", []),  # not in the lists
    ],
)
def test_own_nouns(text: str, nouns: list[str]) -> None:
    found = rule_nouns(text, LISTS.known)
    assert [noun.text for noun in found] == nouns


def test_own_nouns_keep_their_places() -> None:
    text = "A man, two dogs."
    assert [text[slice(*noun.span)] for noun in rule_nouns(text, LISTS.known)] == ["man", "dogs"]


@pytest.mark.skipif(not installed_tools().official_nouns, reason="NLTK or its data are not installed")
def test_the_tagger_of_the_official_script_is_used_where_it_is_installed() -> None:
    text = 'Dogs bark; two "dogs" can watch a man under the sky.'
    found = nltk_nouns(text, LISTS.known)
    assert [(noun.text, text[slice(*noun.span)]) for noun in found] == [("dog", "dogs"), ("man", "man"), ("sky", "sky")]


LEMMAS = """
dogs:dog boxes:box benches:bench women:woman men:men people:people glasses:glass bus:bus buses:bus leaves:leaf
skis:ski vases:vas sunglasses:sunglass TVs:TVs grass:grass candies:candy knives:knife
"""


@pytest.mark.parametrize("pair", LEMMAS.split())
def test_lemmas_as_wordnet_gives_them(pair: str) -> None:
    form, base = pair.split(":")
    known = {"dog", "box", "bench", "woman", "man", "people", "glass", "bus", "leave", "ski", "vase", "TV", "grass"}
    assert lemma(form, known | {"candy", "sunglasses", "knife"}) == base


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "amber"
    (folder / "query").mkdir(parents=True)
    rows = [
        {"id": 1, "type": "generative", "truth": ["sky", "dog"], "hallu": ["person", "boat"]},
        {"id": 2, "type": "generative", "truth": ["forest"], "hallu": ["sky"]},
        {"id": 1005, "type": "discriminative-attribute-state", "truth": "yes"},
        {"id": 1006, "type": "discriminative-attribute-number", "truth": "no"},
        {"id": 1007, "type": "discriminative-attribute-action", "truth": "no"},
        {"id": 1008, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 1009, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 1010, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 1011, "type": "relation", "truth": "yes"},
        {"id": 1012, "type": "relation", "truth": "no"},
    ]
    (folder / "annotations.json").write_text(json.dumps(rows))
    (folder / "relation.json").write_text(json.dumps(ASSOCIATION))
    (folder / "safe_words.txt").write_text("light\nsnack\n")
    query = [{"id": 1005, "image": "AMBER_1.jpg", "query": "Is the sky sunny in this image?"}]
    (folder / "query" / "query_all.json").write_text(json.dumps(query))
    return folder


# 1: dog, sky true; man absent and expected (person); light safe: 4 nouns. 2: tree true; dog absent: 2 nouns.
DESCRIPTIONS = {1: "A dog and a man under the sky. A light.", 2: "A tree by a dog."}
ANSWERS = {1005: "Yes", 1006: "No", 1007: "no", 1008: "No", 1009: "No", 1010: "Yes", 1011: "No", 1012: "No"}


def scored(name: str, data: Path, answers: dict[int, str], **options: Any) -> ScoredFile:
    path = data.parent / "answers.json"
    path.write_text(json.dumps([{"id": key, "response": text} for key, text in answers.items()]))
    return score_file(name, path, BenchmarkOptions(data, **options), resamples=100)


def value(result: ScoredFile, name: str) -> float:
    found = result.estimates[name].value
    assert found is not None
    return found


def test_descriptions_by_hand(data: Path) -> None:
    result = scored("amber-generative", data, DESCRIPTIONS)
    assert value(result, "chair") == pytest.approx(2 / 6.001, abs=1e-12)
    assert value(result, "cover") == pytest.approx(3 / 3.001, abs=1e-12)
    assert value(result, "hal") == pytest.approx(1 - 0 / 2.001, abs=1e-12)
    assert value(result, "cog") == pytest.approx(1 / 3.001, abs=1e-12)
    one = scored("amber", data, {1: "A dog.", 2: DESCRIPTIONS[2]}, split="generative")
    assert value(one, "hal") == pytest.approx(1 - 1 / 2.001, abs=1e-12)


def test_yes_and_no_by_hand(data: Path) -> None:
    result = scored("amber-discriminative", data, ANSWERS)
    # Right: 1005, 1006, 1008, 1009, 1012 of 8; "no" is no answer. Says No: 1006, 1008, 1009, 1011, 1012; no: 6.
    assert value(result, "accuracy") == pytest.approx(5 / 8.001, abs=1e-12)
    assert value(result, "precision") == pytest.approx(4 / 5.001, abs=1e-12)
    assert value(result, "recall") == pytest.approx(4 / 6.001, abs=1e-12)
    # Precision 80.0 % and recall 66.7 %, as printed.
    assert value(result, "f1") == pytest.approx(2 * 0.800 * 0.667 / (0.800 + 0.667 + 0.0001), abs=1e-12)
    # Existence: 1008, 1009 right of 3, both No. 100.0 % and 66.6 % (2 / 3.001), and another constant.
    assert value(result, "existence_recall") == pytest.approx(2 / 3.001, abs=1e-12)
    assert value(result, "existence_f1") == pytest.approx(2 * 1.0 * 0.666 / (1.0 + 0.666 + 0.001), abs=1e-12)
    # Attributes add up three counters, each beginning at 0.001.
    assert value(result, "attribute_accuracy") == pytest.approx(2 / 3.003, abs=1e-12)
    assert value(result, "number_accuracy") == pytest.approx(1 / 1.001, abs=1e-12)
    assert value(result, "action_precision") == 0  # nobody said No: 0 / 0.001
    assert value(result, "relation_precision") == pytest.approx(1 / 2.001, abs=1e-12)
    assert value(result, "touched") == 1  # "no"
    assert result.estimates["existence_accuracy"].n == 3


@pytest.mark.parametrize("second", ["Yes", "No"])
def test_a_second_answer_to_one_question_is_refused_with_file_and_row(data: Path, tmp_path: Path, second: str) -> None:
    """The script would count both, equal or not."""
    path = tmp_path / "answers.json"
    rows = [{"id": key, "response": text} for key, text in ANSWERS.items()]
    path.write_text(json.dumps([*rows, {"id": "1005", "response": second}]))
    words = ["score", "amber-discriminative", "--answers", str(path), "--data", str(data), "--out", str(tmp_path / "o")]
    done = CliRunner().invoke(app, words)
    sentence = f"{path} entry 9: a second answer to '1005', after {path} entry 1; the official script would count both"
    assert done.exit_code == 2 and sentence in " ".join(done.stderr.split()), done.output
    path.write_text(json.dumps(rows))
    assert CliRunner().invoke(app, words).exit_code == 0  # the refused file has not taken the directory


def test_the_amber_score_takes_both_parts(data: Path) -> None:
    result = scored("amber", data, {**DESCRIPTIONS, **ANSWERS})
    chair, f1 = value(result, "chair"), value(result, "f1")
    assert value(result, "amber_score") == pytest.approx((100 - 100 * chair + 100 * f1) / 2)


def test_a_part_that_nobody_answered_has_no_figures(data: Path) -> None:
    result = scored("amber", data, DESCRIPTIONS)
    assert result.estimates["accuracy"].value is None and result.estimates["accuracy"].unscored == 8
    assert result.estimates["amber_score"].value is None
    assert value(result, "chair") == pytest.approx(2 / 6.001)


def test_what_the_official_tools_would_have_decided_is_counted_and_named(data: Path) -> None:
    benchmark = get_benchmark("amber", BenchmarkOptions(data))
    sample = next(iter(benchmark.samples()))
    text = DESCRIPTIONS[1]
    found = benchmark.score(sample, Answer(sample_id="1", cluster=sample.cluster, text=text, tokens=1, finished=True))
    assert [text[start:end] for start, end in found.details["hallucinated"]] == ["man"]
    if found.details["similarity"] == "none":
        assert found.values["touched"] == 1 and "no similarity" in benchmark.metrics["chair"].label


@pytest.mark.parametrize("part", ["existence", "attribute", "relation"])
def test_one_dimension_alone(data: Path, part: str) -> None:
    result = scored("amber", data, ANSWERS, split=part)
    whole = scored("amber-discriminative", data, ANSWERS)
    names = [f"{part}_{metric}" for metric in ("accuracy", "precision", "recall", "f1")]
    assert [value(result, name) for name in names] == [value(whole, name) for name in names]
    assert "accuracy" not in result.estimates


@pytest.mark.parametrize("absent", ["annotations.json", "relation.json", "safe_words.txt"])
def test_a_missing_file_is_named_with_its_source(data: Path, absent: str) -> None:
    (data / absent).unlink()
    with pytest.raises(InputError, match=rf"amber needs {absent} in .*junyangwang0410/AMBER"):
        scored("amber", data, DESCRIPTIONS)


def test_questions_need_the_annotations_alone(data: Path) -> None:
    for name in ("relation.json", "safe_words.txt", "query/query_all.json"):
        (data / name).unlink()
    assert value(scored("amber-discriminative", data, ANSWERS), "accuracy") == pytest.approx(5 / 8.001)


@pytest.mark.skipif(not (EXTRACTS / "amber_annotations.extract.json").exists(), reason="no extract of AMBER's files")
def test_the_official_files_are_read(tmp_path: Path) -> None:
    for name, source in (("annotations.json", "annotations"), ("query_all.json", "queries")):
        (tmp_path / name).write_text((EXTRACTS / f"amber_{source}.extract.json").read_text())
    samples = list(get_benchmark("amber", BenchmarkOptions(tmp_path, split="discriminative")).samples())
    assert len(samples) == 40 and samples[0].prompt == "Is the sky sunny in this image?"
    assert {type_groups(sample.truth["kind"])[1] for sample in samples} == {"attribute"}
    assert samples[0].cluster == "AMBER_1.jpg"


def test_labels_in_capitals_are_read_and_others_refused(data: Path) -> None:
    path = data / "annotations.json"
    path.write_text(path.read_text().replace('"yes"', '"Yes"').replace('"no"', '"No "'))
    assert value(scored("amber-discriminative", data, ANSWERS), "accuracy") == pytest.approx(5 / 8.001)
    path.write_text(path.read_text().replace('"No "', '"maybe"', 1))
    with pytest.raises(InputError, match=r"annotations\.json entry 4: truth = 'maybe' is neither yes nor no"):
        scored("amber-discriminative", data, ANSWERS)
