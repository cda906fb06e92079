"""Borders of sentences, cuts at words, and the swap of yes and no, each against text written by hand."""

import pytest

from sightline.data.texts import count_words, cut_before_word, split_sentences, starts_with_yes_no, swap_yes_no


@pytest.mark.parametrize(
    "pieces",
    [
        ["A cup stands there.", " A plate lies beside it."],
        ["One!", " Two?", " Three."],
        ["No full stop at the end"],
        ["It is red.", "\n\nIt is small.", "  It is old."],  # the white space stays, whatever it is
        ['It says "stop."', " A car waits."],
        ["It says 'stop!'", " A car waits."],
        ["It says \u201cstop.\u201d", " A car waits."],
        ["(A cup is there.)", " A plate is not."],
        ["The box [it is red.]", " There is no other."],
        ["Mr. and Mrs. Smith sit with Dr. Jones on St. Mark's square.", " They smile."],
        ["Cups, plates, etc. lie on the table, e.g. a red one, i.e. mine.", " That is all."],
        ["Photo by J. R. Smith.", " It is old."],
        ["The cup is 3.5 cm high.", " It costs 2.50 dollars."],
        ["It is 3.", " The other is 4."],  # a number may end a sentence
        ["See example.com for more.", " It is free."],  # no white space, no border
        ["Yes.", " There is a cup."],
        ["No.", " There is none."],  # not an abbreviation of number
        ["It ends here."],
    ],
)
def test_borders(pieces: list[str]) -> None:
    assert split_sentences("".join(pieces)) == pieces


@pytest.mark.parametrize("blank", ["", " ", "\n\t "])
def test_a_blank_text_has_no_sentences(blank: str) -> None:
    assert split_sentences(blank) == []


def test_leading_white_space_belongs_to_the_first_sentence_and_trailing_to_the_last() -> None:
    assert split_sentences("  A cup.  A pan. ") == ["  A cup.", "  A pan. "]


@pytest.mark.parametrize(
    ("sentence", "swapped"),
    [
        ("Yes, there is a cup.", "No, there is a cup."),
        ("No, there is no cup.", "Yes, there is no cup."),  # the first word alone; the rest is the model's to write
        ("yes.", "no."),
        ("no", "yes"),
        ("  Yes!", "  No!"),
        ("\n\nNo.", "\n\nYes."),
        ("No; yes and no.", "Yes; yes and no."),
    ],
)
def test_a_leading_yes_or_no_is_swapped_and_keeps_its_case(sentence: str, swapped: str) -> None:
    assert starts_with_yes_no(sentence)
    assert swap_yes_no(sentence) == swapped
    assert swap_yes_no(swapped) == sentence


@pytest.mark.parametrize(
    "sentence",
    ["Now a car comes.", "North of it is a barn.", "None is red.", "Not one.", "Nobody.", "Yesterday.", "Noon",
     "nothing", "Yes2", "There is no cup.", "A yes.", "YES.", "NO.", "nO.", '"Yes."', ""],
)  # fmt: skip
def test_other_words_are_left_alone(sentence: str) -> None:
    assert not starts_with_yes_no(sentence)
    assert swap_yes_no(sentence) == sentence


def test_cuts_lie_between_words() -> None:
    cuts = [cut_before_word("A red cup, there.", word) for word in range(5)]
    assert cuts == ["", "A", "A red", "A red cup,", "A red cup, there."]
    assert [cut_before_word("\n A  cup.", word) for word in range(3)] == ["\n ", "\n A", "\n A  cup."]
    with pytest.raises(IndexError):
        cut_before_word("A cup.", 3)


def test_words_are_what_white_space_parts() -> None:
    assert [count_words(text) for text in ("", "cup", " a  red\ncup. ", "a,b")] == [0, 1, 3, 1]
