"""The four ways of asking whether two records match (arXiv 2409.08185), and how an answer is read.

The sentences are our own; what they vary is the paper's: a complex or a simple question, and whether the form of the
answer is free or forced.
"""

import re

QUESTIONS = {
    "complex": "Two {noun} descriptions follow. Do they stand for one and the same real-world {noun}?",
    "simple": "Two {noun} descriptions follow. Do they match?",
}
FORMS = {"free": "", "force": " Say Yes or No, and nothing else."}
#: Every prompt by name, the paper's four.
PROMPTS = tuple(f"{question}-{form}" for question in QUESTIONS for form in FORMS)
#: The prompt that the paper trains with.
TRAINING = "complex-free"
_WORD = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)


def prompt_of(name: str, noun: str, left: str, right: str) -> str:
    """The question `name` about two records of a kind."""
    question, _, form = name.partition("-")
    asked = QUESTIONS[question].format(noun=noun) + FORMS[form]
    return f"{asked}\nFirst {noun}: {left}\nSecond {noun}: {right}"


def read_match(text: str) -> bool | None:
    """What an answer says, by the paper's rule: "yes" anywhere is a match, else "no" anywhere none; None is neither."""
    said = text.lower()
    if "yes" in said:
        return True
    return False if "no" in said else None


def is_quirk(text: str) -> bool:
    """Whether that rule decides by letters inside of words ("cannot"), or against the word that comes first."""
    found = _WORD.search(text)
    plain = None if found is None else found.group().lower() == "yes"
    return plain is not read_match(text)
