"""Comparison of questions."""

import pytest

from sightline.evals.questions import same_question

DOG = "Is there a dog in the image?"
OPTIONS = (
    "Context: Look closely.\nWhich?\nA. one\nB. two\nAnswer with the option's letter from the given choices directly."
)


@pytest.mark.parametrize(
    ("listed", "given"),
    [
        (DOG, "is there  a DOG in the image"),
        (DOG, f"{DOG}\nAnswer the question using a single word or phrase."),
        (DOG, f"<image>\n{DOG} Please answer yes or no."),
        (DOG, f"USER: <image>\n{DOG} ASSISTANT:"),
        (DOG, f"Question: {DOG} Answer:"),
        (DOG, "Is there a dog in the imange?"),  # as POPE's first release has it
        (DOG, f"Look closely and tell me, {DOG.lower()}"),
        (DOG, "<image>"),  # says nothing
        (f"{DOG} Please answer yes or no.", f"{DOG}\nAnswer the question using a single word or phrase."),
        ("Is it on the right Please answer yes or no.", "Is it on the right\nAnswer the question using a single word."),
        ("What is the brand?", "What is the brand?\nReference OCR token: NOKIA, 3310\nAnswer in one word."),
        (OPTIONS, "<image>\nContext: N/A\nQuestion: Which?\nOptions: (A) one (B) two BECAUSE:"),
        (OPTIONS, "Which?"),
    ],
)
def test_the_same(listed: str, given: str) -> None:
    assert same_question(listed, given)


@pytest.mark.parametrize(
    ("listed", "given"),
    [
        (DOG, "Is there a hot dog in the image?"),
        (DOG, "Is there a dog?"),
        ("Is there a car in the image?", "Is there a carrot in the image?"),
        ("Is it?", "Where is it?"),
        ("What is this?", "What is this person doing?"),
        ("Is the cat on the dog?", "Is the dog on the cat?"),
        (DOG, "Yes"),
        (OPTIONS, "Which?\nA. three\nB. four\nC. five"),
    ],
)
def test_another(listed: str, given: str) -> None:
    assert not same_question(listed, given)
