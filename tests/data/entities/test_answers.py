"""The paper's rule of parsing an answer with its quirks, four prompts, and a string similarity by hand."""

import pytest

from sightline.recipes.matching.entities.pairs import PROMPTS, is_quirk, match_prompt, read_match
from sightline.recipes.matching.structured import similarity


@pytest.mark.parametrize(
    ("text", "match", "quirk"),
    [
        ("Yes", True, False),
        ("No.", False, False),
        ("Yes, since no value differs", True, False),
        ("No. The answer yes would be wrong", True, True),  # anywhere in the text, and yes first
        ("They do not match", False, True),  # the letters of "not"
        ("NO", False, False),
        ("I think so", None, False),
        ("", None, False),
    ],
)
def test_an_answer_is_read_by_the_rule_of_the_paper(text: str, match: bool | None, quirk: bool) -> None:
    assert (read_match(text), is_quirk(text)) == (match, quirk)


def test_four_prompts_differ_and_hold_both_records() -> None:
    prompts = [match_prompt(name, "lamp", "Lumo {x}", "Orba") for name in PROMPTS]
    assert PROMPTS == ("complex-free", "complex-force", "simple-free", "simple-force")
    assert len(set(prompts)) == 4
    assert all("First lamp: Lumo {x}\nSecond lamp: Orba" in text for text in prompts)
    assert ["Yes or No" in text for text in prompts] == [False, True, False, True]


def test_likeness_of_strings_by_hand() -> None:
    """' ab ' has the trigrams ' ab' and 'ab ', ' abc ' has ' ab', 'abc', 'bc ': one shared of 2 + 3."""
    assert similarity("ab", "abc") == similarity("abc", "ab") == pytest.approx(2 * 1 / 5)
    assert similarity("LX-20", "lx 20") == 1.0, "case and punctuation do not count"
    assert similarity("lamp", "") == similarity("", "") == 0.0
    assert similarity("lamp", "vase") == 0.0
    assert similarity("aaaa", "aaa") == pytest.approx(2 * 3 / 7)  # ' aa', 'aaa' x 2, 'aa ' against one 'aaa'
