"""Rows of every layout become pairs or samples with their images, history and provenance."""

import json
from typing import Any

import pytest

from sightline.data.formats.registry import LAYOUTS
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import read_samples
from sightline.errors import InputError
from sightline.records import Turn
from tests.data.formats.conftest import BAD, GOOD, Folder, assistant, example, gpt, human, rated, user

OF_PAIRS = [name for name in LAYOUTS if name != "llava-instruct"]


@pytest.mark.parametrize("layout", OF_PAIRS)
@pytest.mark.parametrize("named", [True, False])
def test_sound_rows_become_pairs(folder: Folder, layout: str, named: bool) -> None:
    name, rows = example(layout, folder)
    manifest, out = folder.read(folder.put(name, rows), layout if named else "auto", images=folder.path)
    assert manifest.complete and manifest.stage == f"import {layout}"
    assert manifest.counts == {"rows": 2, "pairs": 2} and manifest.dropped == {}
    pairs = folder.pairs(folder.path / name, layout, images=folder.path)
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [("What is there?", GOOD, BAD)] * 2
    assert [pair.id for pair in pairs] == [f"{layout}-00000001", f"{layout}-00000002"]
    for number, (pair, image) in enumerate(zip(pairs, ("a.png", "b.png"), strict=True), 1):
        assert pair.builder == layout and pair.history == ()
        assert pair.provenance["file"] == name and pair.provenance["row"] == number
        assert [(out / own).read_bytes() for own in pair.images] == [folder.data(image)]
    assert len({pair.cluster for pair in pairs}) == 2
    assert (out / "data/train-00000-of-00001.parquet").exists()


def test_instructions_become_samples(folder: Folder) -> None:
    turns = [human("<image>\nWhat?"), gpt("A cup."), human("And?"), gpt("A pan.")]
    rows = [{"id": "1", "image": "a.png", "conversations": turns}, {"id": "1", "conversations": turns[2:]}]
    place = folder.put("instruct.json", rows)
    manifest, out = folder.read(place)
    first, second = read_samples(out)
    assert manifest.counts == {"rows": 2, "samples": 2}
    assert first.history == (Turn(role="user", text="What?"), Turn(role="assistant", text="A cup."))
    assert (first.prompt, first.reference, len(first.images)) == ("And?", "A pan.", 1)
    assert (second.prompt, second.reference, second.images, second.history) == ("And?", "A pan.", (), ())
    every = list(read_samples(folder.read(place, turns="every")[1]))
    assert [(s.id[-2:], s.prompt, s.reference) for s in every] == [
        ("-1", "What?", "A cup."),
        ("-2", "And?", "A pan."),
        ("02", "And?", "A pan."),
    ]
    assert every[0].cluster == every[1].cluster != every[2].cluster


def test_corrections_become_spans(folder: Folder) -> None:
    (pair, _) = folder.pairs(folder.put(*example("rlhf-v", folder)))
    assert [pair.rejected[start:end] for start, end in pair.rejected_spans] == ["and a spoon"]
    assert pair.chosen_spans == ()
    assert pair.provenance["origin_dataset"] == "LCS-558K" and pair.provenance["idx"] == 0


def test_each_answer_in_which_conversations_part_is_a_pair(folder: Folder) -> None:
    questions = [human("<image>\nWhat?"), human("And?"), human("Where?")]
    good, bad = ["A cup.", "A pan.", "Left."], ["A dog.", "A pan.", "Right."]
    sides = {
        key: [turn for ask, answer in zip(questions, answers, strict=True) for turn in (ask, gpt(answer))]
        for key, answers in (("conversations", good), ("rejected_conversations", bad))
    }
    pairs = folder.pairs(folder.put("povid.json", [{"image": "a.png", **sides}]))
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in pairs] == [
        ("What?", "A cup.", "A dog."),
        ("Where?", "Left.", "Right."),
    ]
    assert [turn.text for turn in pairs[1].history] == ["What?", "A cup.", "And?", "A pan."]


COMPLETIONS = [
    rated("m1", "one", "3", "3", "5"),
    rated("m2", "two", "5", "4", "5"),
    rated("m3", "three", "5", "1", "5"),  # as m1
    rated("m4", "four", "N/A", "5", "5"),
]


@pytest.mark.parametrize(
    ("settings", "expected", "dropped"),
    [
        ({}, [("two", "one")], {}),
        ({"ranked": "all"}, [("two", "one"), ("two", "three")], {"tie": 1}),
        ({"aspects": ("Visual Faithfulness",)}, [("four", "three")], {}),
        ({"aspects": ("Ethical Considerations",)}, [], {"tie": 1}),
    ],
)
@pytest.mark.parametrize("of_lists", [False, True])
def test_ratings_decide(
    folder: Folder, settings: dict[str, Any], expected: list[object], dropped: dict[str, int], of_lists: bool
) -> None:
    """`datasets` gives a sequence of structs as a struct of lists."""
    completions: Any = {key: [one[key] for one in COMPLETIONS] for key in COMPLETIONS[0]} if of_lists else COMPLETIONS
    sound = {
        "prompt": "What?",
        "img_path": "a.png",
        "completions": [rated("g", "up", *"555"), rated("h", "down", *"111")],
    }
    place = folder.put(
        "vlfeedback.jsonl", [sound, {"prompt": "What?", "img_path": "a.png", "completions": completions}]
    )
    if expected == []:
        with pytest.raises(InputError, match=r"none is left.*'tie': 2"):
            folder.read(folder.put("tie.jsonl", [{**sound, "completions": completions}] * 2), **settings)
        return
    manifest, _ = folder.read(place, **settings)
    pairs = folder.pairs(place, **settings)[1:]
    assert [(pair.chosen, pair.rejected) for pair in pairs] == expected
    assert manifest.dropped == dropped
    if not settings:
        assert pairs[0].provenance["chosen_model"] == "m2" and pairs[0].provenance["rejected_model"] in {"m1", "m3"}
        assert pairs[0].provenance["chosen_ratings"]["Helpfulness"] == 5.0
        assert pairs[0].provenance["chosen_score"] == pytest.approx(14 / 3, abs=1e-6)


def test_too_few_ratings_drop_the_row(folder: Folder) -> None:
    _, rows = example("vlfeedback", folder)
    lone = {**rows[0], "completions": [COMPLETIONS[0], COMPLETIONS[3]]}
    manifest, _ = folder.read(folder.put("vlfeedback.jsonl", [lone, rows[1]]))
    assert manifest.dropped == {"fewer than two rated answers": 1} and manifest.counts["pairs"] == 1


def test_llava_rlhf_conversations_within_a_list(folder: Folder) -> None:
    _, rows = example("llava-rlhf", folder)
    turns = [human("<image>\nWhat?"), gpt("A cup."), human("Sure?"), gpt("(place)")]
    (pair,) = folder.pairs(folder.put("rlhf.json", [{**rows[1], "conversations": [turns]}]))
    assert [turn.text for turn in pair.history] == ["What?", "A cup."]
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Sure?", GOOD, BAD)


def test_several_images_stay_where_the_text_has_them(folder: Folder) -> None:
    question = "Image-1: <image>\nImage-2: <image>\nWhich is red?"
    row = {"image": ["a.png", "deep/c.jpg"], "question": question, "chosen": "1", "rejected": "2"}
    leading = {**row, "question": "<image>\n<image>\nWhich is red?"}
    _, out = folder.read(folder.put("mmpr.jsonl", [row, leading]))
    first, second = folder.pairs(folder.path / "mmpr.jsonl")
    assert first.prompt == question and second.prompt == "Which is red?"
    for pair in (first, second):
        assert [(out / name).read_bytes() for name in pair.images] == [folder.data("a.png"), folder.data("deep/c.jpg")]
    assert first.cluster == second.cluster


def test_an_earlier_answer_sees_the_images_before_it(folder: Folder) -> None:
    turns = [human("<image>\nWhat?"), gpt("A cup."), human("<image>\nAnd here?"), gpt("A pan.")]
    place = folder.put("i.json", [{"images": ["a.png", "b.png"], "conversations": turns}])
    first, second = read_samples(folder.read(place, turns="every")[1])
    assert (len(first.images), first.prompt) == (1, "What?")
    assert (len(second.images), second.prompt) == (2, "<image>\nAnd here?")
    assert second.history[0].text == "<image>\nWhat?"


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [user("What?"), assistant("Yes.")], "rejected": [user("What?"), assistant("No.")]},
        {
            "prompt": "What?",
            "chosen": [user("What?"), assistant("Yes.")],
            "rejected": [user("What?"), assistant("No.")],
        },
        {"prompt": [user("What?")], "chosen": [assistant("Yes.")], "rejected": [assistant("No.")]},
        {"prompt": "What?", "chosen": "Yes.", "rejected": "No."},
    ],
)
def test_prompts_of_trl_explicit_or_not(folder: Folder, row: dict[str, object]) -> None:
    (pair,) = folder.pairs(folder.put("trl.jsonl", [{"images": ["a.png"], **row}]))
    assert (pair.prompt, pair.chosen, pair.rejected, pair.history) == ("What?", "Yes.", "No.", ())


def test_trl_rows_of_several_turns_and_images(folder: Folder) -> None:
    def typed(*entries: str | None) -> list[dict[str, object]]:
        return [{"type": "text", "text": entry} if entry else {"type": "image", "text": None} for entry in entries]

    prompt = [
        {"role": "system", "content": typed("Be brief.")},
        user(typed(None, "What?")),
        assistant(typed("A cup.")),
        user(typed("Compare ", None, " to it.")),
    ]
    images = [{"bytes": folder.data(name), "path": None} for name in ("a.png", "b.png")]
    row = {
        "images": images,
        "prompt": prompt,
        "chosen": [assistant(typed("Yes."))],
        "rejected": [assistant(typed("No."))],
    }
    (pair,) = folder.pairs(folder.put("trl.parquet", [row]))
    assert [turn.role for turn in pair.history] == ["system", "user", "assistant"]
    assert pair.history[1].text == "<image>What?"
    assert pair.prompt == "Compare <image> to it." and len(pair.images) == 2


def test_system_prompts_of_peers(folder: Folder) -> None:
    _, rows = example("llama-factory", folder)
    (pair,) = folder.pairs(folder.put("l.json", [{**rows[0], "system": "Be brief."}]))
    assert pair.history == (Turn(role="system", text="Be brief."),)
    openai = {**rows[0], "conversations": None, "messages": [user("<image>Hi")]}
    sides = {"chosen": assistant(GOOD), "rejected": assistant(BAD)}
    (pair,) = folder.pairs(folder.put("m.json", [{**openai, **sides}]))
    assert (pair.prompt, pair.chosen) == ("Hi", GOOD)


@pytest.mark.parametrize(
    ("rejected", "expected"),
    [
        ({"rejected_response": ["No.", "Never."]}, ["No.", "Never."]),
        ({"rejected_response": [assistant("No.")]}, ["No."]),
        ({"rejected_messages": [user("<image>What?"), assistant("No.")]}, ["No."]),
        ({"rejected_messages": [user("<image>What?"), assistant("No.")], "rejected_images": ["a.png"]}, ["No."]),
    ],
)
def test_what_ms_swift_may_reject(folder: Folder, rejected: dict[str, object], expected: list[str]) -> None:
    row = {
        "messages": [user("<image>What?"), assistant("Yes.")],
        "images": ["a.png"],
        "system": "Be brief.",
        **rejected,
    }
    pairs = folder.pairs(folder.put("swift.jsonl", [row]))
    assert [pair.rejected for pair in pairs] == expected
    assert all(pair.prompt == "What?" and pair.history[0].text == "Be brief." for pair in pairs)


def test_messages_of_ms_swift_stand_for_all_after_the_last_user_turn(folder: Folder) -> None:
    """As its `rejected_response` of messages does; earlier answers are history."""
    turns = [user("<image>What?"), assistant("A cup."), user("Which color?"), assistant("Red.")]
    row = {"messages": turns, "images": ["a.png"], "rejected_response": [assistant("Blue.")]}
    (pair,) = folder.pairs(folder.put("swift.jsonl", [row]))
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Which color?", "Red.", "Blue.")
    assert [turn.text for turn in pair.history] == ["What?", "A cup."]
    for response, sentence in (
        ([user("No?"), assistant("No.")], "holds a message of another role than assistant"),
        ([assistant("No."), assistant("Never.")], "have different turns"),
        ([{"role": "assistant"}], "is not the content of a turn"),
        ([assistant("No."), "No."], "is not an answer, a list of answers or a list of messages"),
    ):
        with pytest.raises(InputError, match=f"row 1: .*{sentence}"):
            folder.read(folder.put("swift.jsonl", [{**row, "rejected_response": response}]))


def test_a_pair_of_pictures_alone_is_refused_by_name(folder: Folder) -> None:
    row = {"messages": [user("<image>What?"), assistant("Yes.")], "images": ["a.png"], "rejected_images": ["b.png"]}
    with pytest.raises(InputError, match=r"row 1: rejected_images differ from images, and a pair has one set"):
        folder.read(folder.put("swift.jsonl", [row]))


@pytest.mark.parametrize("every", ["last", "every"])
def test_an_opening_turn_of_the_assistant_is_left_out_and_counted(folder: Folder, every: str) -> None:
    turns = [gpt("Welcome."), human("<image>\nName a color."), gpt("Red."), human("Another?"), gpt("Blue.")]
    place = folder.put("chat.json", [{"image": "a.png", "conversations": turns}])
    manifest, out = folder.read(place, "llava-instruct", turns=every)
    samples = list(read_samples(out))
    assert manifest.dropped == {"opening turn of the assistant": 1}
    assert [sample.reference for sample in samples] == (["Red.", "Blue."] if every == "every" else ["Blue."])
    assert all("Welcome." not in [turn.text for turn in sample.history] for sample in samples)
    assert samples[-1].history[0].text == "Name a color."


def test_opening_turns_of_pairs_are_left_out_too(folder: Folder) -> None:
    context = [gpt("Welcome."), human("<image>\nWhat?")]
    povid: dict[str, Any] = {
        "image": "a.png",
        "conversations": [*context, gpt(GOOD)],
        "rejected_conversations": [*context, gpt(BAD)],
    }
    compared: dict[str, Any] = {"image": "a.png", "conversations": [*context, gpt("")], "preference": 1}
    rated = {**compared, "output_1": gpt(GOOD), "output_2": gpt(BAD)}
    for number, row in enumerate((povid, rated)):
        manifest, out = folder.read(folder.put(f"{number}.json", [row]))
        assert manifest.dropped == {"opening turn of the assistant": 1}
        (pair,) = read_pairs(out)
        assert (pair.history, pair.prompt, pair.chosen, pair.rejected) == ((), "What?", GOOD, BAD)


def test_rejected_images_are_not_read(folder: Folder) -> None:
    _, rows = example("ms-swift", folder)
    place = folder.put("swift.jsonl", [{**rows[0], "rejected_images": ["b.png"]}])
    with pytest.raises(InputError, match=r"swift\.jsonl row 1: rejected_images differ"):
        folder.read(place)


def test_paths_of_peers_may_be_absolute(folder: Folder) -> None:
    _, rows = example("ms-swift", folder)
    place = folder.put("swift.jsonl", [{**rows[0], "images": [str(folder.path / "a.png")]}])
    assert len(folder.pairs(place)) == 1
    with pytest.raises(InputError, match=r"row 1: image path .* does not stay in"):
        folder.read(place, images=folder.path / "deep")


def test_text_json_may_be_a_struct(folder: Folder) -> None:
    _, rows = example("rlhf-v", folder)
    row = {**rows[0], "text": json.loads(str(rows[0]["text"]))}
    (pair,) = folder.pairs(folder.put("rlhf_v.parquet", [row]))
    assert (pair.chosen, pair.rejected) == (GOOD, BAD)
