"""Correctness pairs: final answers, when they are right, the drawn pairs, and the stage.

The model is real: it knows a few answers by heart, and at a high temperature it also gets them wrong.
"""

import math
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sightline.builders.correctness import (
    CORRECTNESS,
    CorrectnessConfig,
    build_correctness,
    even_pairs,
    final_answer,
    is_right,
    normalize_answer,
)
from sightline.builders.sampled_answers import Unanswered, answer_requests, sample_answers
from sightline.config import load_config
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import write_samples
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import Prefix
from sightline.records import Sample
from tests.builders.builders import assert_goes_on, assert_rows_stand_alone, build_results, make_context, numbers_of
from tests.builders.conftest import ASK, DESCRIBE, LEARNED, make_samples, save_scenes

#: The fluent model says "No, there is no spoon." to ASK; its final answer is what stands behind "there is".
CONFIG = CorrectnessConfig(
    samples=24, pairs=4, marker="there is", suffix="", temperature=2.0, max_new_tokens=24, batch_size=16, wave=3
)
SAYS = LEARNED[2][2]


@pytest.fixture(scope="module")
def fluent(fluent_dir: Path, samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    return make_context(samples_dir, tmp_path_factory.mktemp("work"), load_vlm(fluent_dir))


def asking(reference: str = "no spoon", prompt: str = ASK, name: str = "a", **fields: object) -> Sample:
    return Sample.model_validate(
        {"id": name, "images": ("images/0.png",), "prompt": prompt, "reference": reference, "task": "t", **fields}
    )


# --- the final answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "final"),
    [
        ("It has wheels.\nFinal Answer: a car", "a car"),
        ("final answer:42", "42"),
        ("**Final Answer:** 12 cups\nThat is all.", "12 cups"),
        ("Final Answer:\n\n  (B)\n", "(B)"),
        ("Final Answer: A\nNo, wait.\nFinal Answer: B", "B"),
        ("Final Answer: **B**", "B"),
        ("Final Answer: -3", "-3"),
        ("Final Answer:  \n ", None),
        ("The answer is B.", None),
        ("", None),
    ],
)
def test_it_stands_behind_the_last_marker(text: str, final: str | None) -> None:
    assert final_answer(text, "Final Answer:") == final


def test_without_marker_all_of_it_is() -> None:
    assert final_answer(" Yes.\nIt is. ", "") == "Yes.\nIt is."
    assert final_answer(" \n", "") is None
    assert final_answer("So: (3 + 4)? 7", "(3 + 4)?") == "7"  # a marker is text and no pattern


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("A red car.", "red car"),
        ("the  Red CAR", "a red car"),
        ("twenty-one", "21"),
        ("Thirty two cups", "32 cups"),
        ("1,234.50", "1234.5"),
        ("0.5", "1/2"),
        ("\u22125", "-5.0"),
        ("50%", "50"),
        ("$7", "seven"),
        ("\\boxed{12}", "12"),
        ("(B)", "b"),
        ("B) the dog", "B"),
        ("Option c.", "C"),
        ("B. dog", "dog"),
        ("dog", "(B) a dog"),
        ("b: 7", "seven"),
        ("It's a T-shirt!", "its t shirt"),
        ("A", "a"),
        ("...", "..."),
        ("x+1", "x + 1"),
        ("na\u00efve", "NA\u00cfVE"),
    ],
)
def test_these_are_the_same(answer: str, reference: str) -> None:
    assert is_right(answer, reference) and is_right(reference, answer)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("B", "C"),
        ("B. dog", "C. dog"),  # the letter decides
        ("dog", "B"),
        ("A cat", "A"),
        ("A, B and C", "A"),
        ("red car and a bus", "red car"),
        ("5", "-5"),
        ("x+1", "x-1"),
        ("1.5", "15"),
        ("12", "1/2"),
        ("1/2", "1 2"),
        ("10", "10.01"),
        ("eleven", "one one"),
        ("no", "none"),
        ("north", "no"),
        ("", "cup"),
        ("1/0", "0"),
        ("\u0915\u093f", "\u0915\u0940"),  # two vowels of one letter
    ],
)
def test_these_are_not(answer: str, reference: str) -> None:
    assert not is_right(answer, reference) and not is_right(reference, answer)


def test_tolerance_is_a_share_of_the_true_number() -> None:
    assert is_right("104", "100", 0.05) and is_right("96", "100", 0.05) and is_right("105", "100", 0.05)
    assert not is_right("106", "100", 0.05) and not is_right("94", "100", 0.05)
    assert is_right("-96", "-100", 0.05) and not is_right("-96", "100", 0.5)
    assert is_right("100", "95", 0.055) and not is_right("95", "100", 0.0)
    assert not is_right("0.01", "0", 0.5)  # nothing is near zero but zero
    assert not is_right("104 cups", "100 cups", 0.05)  # words are no numbers


@given(st.text())
def test_anything_is_the_same_as_itself(text: str) -> None:
    assert is_right(text, text)
    assert is_right(text, text.strip() + " ")


@given(st.text(), st.text())
def test_without_tolerance_order_does_not_matter(one: str, other: str) -> None:
    assert is_right(one, other) == is_right(other, one)


PLAIN = st.lists(st.sampled_from(["red", "cup", "twenty", "one", "7", "spoon", "north", "no"]), min_size=1, max_size=5)


@given(PLAIN, st.sampled_from(["", ".", "!", " ..."]), st.sampled_from(["", "The ", "a ", "  "]))
def test_case_articles_and_full_stops_change_nothing(words: list[str], end: str, start: str) -> None:
    text = " ".join(words)
    assert is_right(start + text.title() + end, text)
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)
    assert not is_right(text + " kettle", text)


@given(st.integers(0, 99))
def test_number_words(number: int) -> None:
    ones = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    names = f"{ones} seventeen eighteen nineteen".split()
    tens = "- - twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
    name = names[number] if number < 20 else tens[number // 10] + (f"-{names[number % 10]}" if number % 10 else "")
    assert is_right(name.capitalize(), str(number)) and normalize_answer(f"{name} cups") == f"{number} cups"


@given(st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3)), st.floats(0, 0.9))
def test_a_number_within_the_tolerance_is_right(true: float, tolerance: float) -> None:
    assert is_right(f"{true:.3f}", f"{true:.4f}", tolerance)
    assert is_right(f"{true * (1 + tolerance * 0.99):.9f}", f"{true:.3f}", tolerance + 1e-6) or abs(true) < 0.01
    assert not is_right(f"{true + 1 + 2 * abs(true) * tolerance:.3f}", f"{true:.3f}", tolerance)


# --- the pairs --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 50), st.integers(0, 5))
def test_pairs_are_different_and_use_all_answers_evenly(right: int, wrong: int, count: int, seed: int) -> None:
    pairs = even_pairs(right, wrong, count, np.random.default_rng(seed))
    assert len(pairs) == len(set(pairs)) == min(count, right * wrong)
    for side, size in ((0, right), (1, wrong)):
        uses = Counter(pair[side] for pair in pairs)
        assert set(uses) <= set(range(size))
        assert max(uses.values()) - min(uses.get(place, 0) for place in range(size)) <= 1


def test_pairs_are_drawn_at_random() -> None:
    drawn = Counter(even_pairs(3, 4, 1, np.random.default_rng(seed))[0] for seed in range(2400))
    assert len(drawn) == 12
    assert all(abs(number - 200) < 5 * math.sqrt(200) for number in drawn.values())


# --- the builder ------------------------------------------------------------------------------------------------------


def test_right_ones_are_chosen_over_wrong_ones(fluent: RunContext) -> None:
    (result,) = build_results(build_correctness, [asking(cluster="c")], fluent, CONFIG).values()
    prefix = Prefix((fluent.folder / "images/0.png",), ASK)
    (answers,) = sample_answers(fluent, [answer_requests(asking(), prefix, 0, CONFIG.samples)], CONFIG)
    assert answers is not None
    texts = [answer.text.strip() for answer in answers]
    wrong = {text for text, answer in zip(texts, answers, strict=True) if text != SAYS}
    assert SAYS in texts and len(wrong) > 4  # the model knows it, and gets it wrong too
    assert {pair.chosen for pair in result.pairs} <= {SAYS} | {t for t in wrong if "there is no spoon." in t.lower()}
    assert {pair.rejected for pair in result.pairs} <= wrong
    assert len(result.pairs) == 4 == len({pair.rejected for pair in result.pairs})
    assert [pair.id for pair in result.pairs] == [f"a/correctness-00{number}" for number in range(4)]
    for pair in result.pairs:
        assert (pair.prompt, pair.images, pair.cluster) == (ASK, ("images/0.png",), "c")
        assert pair.provenance["chosen_final"] == re.split("there is ", pair.chosen, flags=re.IGNORECASE)[-1]
        assert pair.provenance["chosen_final"].startswith("no spoon.")
        assert pair.provenance["rejected_final"] != "no spoon."
        assert pair.provenance["tokens"] == sum(answer.tokens for answer in answers)
        assert not pair.provenance["suffix_in_prompt"] and pair.provenance["task"] == "t"
    assert result.tallies == {
        "generated_tokens": sum(answer.tokens for answer in answers),
        "right_answers": result.pairs[0].provenance["right"],
        "wrong_answers": result.pairs[0].provenance["wrong"],
        "unfinished_answers": sum(not answer.finished for answer in answers),
    }
    assert result.tallies["right_answers"] + result.tallies["wrong_answers"] == len({text for text in texts if text})


def test_a_suffix_is_asked_and_kept_where_wanted(fluent: RunContext) -> None:
    """The model knows the whole question only: cut in two, prompt and suffix make it."""
    start, end = ASK[:16], ASK[16:]
    whole = build_results(build_correctness, [asking()], fluent, CONFIG)["a"]
    for kept in (True, False):
        result = build_results(
            build_correctness, [asking(prompt=start)], fluent, CONFIG, suffix=end, suffix_in_pair=kept
        )["a"]
        assert [(p.chosen, p.rejected) for p in result.pairs] == [(p.chosen, p.rejected) for p in whole.pairs]
        assert {pair.prompt for pair in result.pairs} == {ASK if kept else start}
        assert {pair.provenance["suffix_in_prompt"] for pair in result.pairs} == {kept}


def test_the_suffix_goes_with_the_marker() -> None:
    assert "'Final Answer: ...'" in CorrectnessConfig().prompt_suffix
    assert "'Answer is: ...'" in CorrectnessConfig(marker="Answer is:").prompt_suffix
    assert CorrectnessConfig(marker="").prompt_suffix == "" == CorrectnessConfig(suffix="").prompt_suffix
    assert CorrectnessConfig(marker="", suffix=" Be brief.").prompt_suffix == " Be brief."
    assert (CorrectnessConfig().samples, CorrectnessConfig().pairs, CorrectnessConfig().temperature) == (32, 15, 1.0)


def test_why_there_is_no_pair(fluent: RunContext) -> None:
    """What the model knows is all right or all wrong; a reference may hold its own marker."""
    nothing = asking(name="nothing", prompt=LEARNED[3][1])
    samples = [asking(name="right"), asking("there is no spoon", name="marked"), asking("two", name="wrong"), nothing]
    long = asking(name="long", prompt="cup " * 300)
    results = build_results(build_correctness, [*samples, long], fluent, CONFIG, temperature=0.01)
    assert {name: one.dropped for name, one in results.items()} == {
        "right": "all right",
        "marked": "all right",
        "wrong": "all wrong",
        "nothing": "the model says nothing",
        "long": "too long for the model",
    }
    assert not any(one.pairs for one in results.values())
    assert results["right"].tallies["generated_tokens"] > 12 and results["right"].tallies["right_answers"] == 1
    assert results["long"].tallies == {}


def test_an_answer_that_was_cut_off_is_wrong_whatever_it_says(fluent: RunContext) -> None:
    """Its last token is the end of turn; one token less, and its line could have gone on."""
    (answers,) = sample_answers(
        fluent,
        [answer_requests(asking(), Prefix((fluent.folder / "images/0.png",), ASK), 0, 1)],
        CONFIG,
        temperature=0.0,
    )
    assert not isinstance(answers, Unanswered) and answers[0].finished
    limit = answers[0].tokens - 1
    (result,) = build_results(
        build_correctness, [asking()], fluent, CONFIG, temperature=0.0, max_new_tokens=limit
    ).values()
    assert (result.dropped, result.tallies["unfinished_answers"]) == ("all wrong", 24)


def test_a_row_stands_alone(samples_dir: Path, fluent: RunContext) -> None:
    samples = [
        asking(name=f"s{number}", reference=text) for number, text in enumerate(["no spoon", "no", "x", "no spoon"])
    ]
    assert_rows_stand_alone(build_correctness, samples, fluent, CONFIG.model_copy(update={"samples": 8}))


def test_the_stage_goes_on_where_it_was(fluent_dir: Path, tmp_path: Path) -> None:
    """Three pictures, of which the model knows one; a description that has no marker is never right."""
    questions = ((ASK, "no spoon"), (DESCRIBE, "a small kettle"), (ASK, "no spoon"))
    write_samples(tmp_path / "samples", make_samples(save_scenes(tmp_path / "samples", 3), questions))
    manifest = assert_goes_on(CORRECTNESS, CONFIG, fluent_dir, tmp_path / "samples", tmp_path)
    pairs = list(read_pairs(tmp_path / "whole"))
    assert manifest.counts == {"samples": 3, "pairs": len(pairs)} and len(pairs) > 4
    numbers = numbers_of(manifest)
    each = {pair.id.split("/")[0]: pair.provenance["tokens"] for pair in pairs}
    assert numbers["generated_tokens"] >= sum(each.values()) > 0
    assert all(pair.builder == "correctness" for pair in pairs)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("samples=1", "samples = 1"),
        ("pairs=0", "pairs = 0"),
        ("marker=' '", "marker is white space"),
        ("tolerance=1", "tolerance = 1"),
        ("sample=4", "did you mean 'samples'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(override: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_config(CorrectnessConfig, None, [override])


def test_a_sample_without_reference_is_refused(fluent: RunContext) -> None:
    with pytest.raises(InputError, match="'a' has no reference"):
        build_results(build_correctness, [asking("  ")], fluent, CONFIG)
