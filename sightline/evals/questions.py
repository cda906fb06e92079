"""Whether two texts ask the same question: case, white space, punctuation and instructions around it do not count.

It reads no file and knows no benchmark. `matching` compares with it what an answer file says was asked with the list.
"""

import re
from functools import lru_cache

#: Where a question, an instruction, an option or a role ends.
_ENDS = re.compile(r"(?<=[.?!:;()\n])")
_MARKS = re.compile(r"<(?:image|img|im|video)[^<>]{0,20}>|\[/?INST\]", re.IGNORECASE)
_OTHER = re.compile(r"[^\w]+")
#: How to answer: the rest of a segment from here on, since some lists put no full stop before it (MME).
_INSTRUCTION = re.compile(
    r"\b(?:please )?(?:answer|reply|respond)\b.*\b(?:yes or no|yes no|single word|one word|a word|phrase"
    r"|options? letter|letter from|short answer|directly)\b.*|^(?:yes or no|one word)$"
)
#: Segments that say whose turn it is, or what comes next; and letters of options.
_LABELS = re.compile(
    r"(?:the )?(?:user|assistant|human|system|ai|gpt|question|answer|context|hint|options?|choices?)|n a|[a-e]"
)
#: Words of a segment that may stand at the end of a longer one.
_LONG = 3
#: Misprints of published lists: POPE's first release has "imange" in 102 questions, its later one has "image".
_MISPRINTS = {"imange": "image"}


@lru_cache(maxsize=4096)
def _segments(text: str) -> tuple[str, ...]:
    found = []
    for part in _ENDS.split(_MARKS.sub("\n", text)):
        words = " ".join(_MISPRINTS.get(word, word) for word in _OTHER.sub(" ", part.casefold()).split())
        words = _INSTRUCTION.sub("", words).strip()
        if words and not _LABELS.fullmatch(words):
            found.append(words + "?" * part.rstrip().endswith("?"))
    return tuple(found)


def repeats_question(listed: str, given: str) -> bool:
    """Whether a text says something, and that is the question of a list."""
    return bool(_segments(given)) and same_question(listed, given)


def same_question(listed: str, given: str) -> bool:
    """Whether a text of an answer file repeats the question that a list asks.

    It does where one holds every sentence of the other, in any order, or where it holds the question itself and half of
    what the list puts around it, such as a context or options. A text without words contradicts nothing.
    """
    if listed == given:
        return True
    ours, theirs = _segments(listed), _segments(given)
    one, other = {words.rstrip("?") for words in ours}, {words.rstrip("?") for words in theirs}
    one = {words if words in other else _ending_with(words, other) for words in one}
    if not one or not other or one <= other or other <= one:
        return True
    questions = {words.rstrip("?") for words in ours if words.endswith("?")}
    return (
        bool(questions)
        and {_ending_with(words, other) for words in questions} <= other
        and 2 * len(one & other) >= len(one)
    )


def _ending_with(words: str, others: set[str]) -> str:
    """A longer segment that only begins otherwise, such as "based on the image, is there a dog?"; else the words."""
    if words.count(" ") + 1 < _LONG:
        return words
    return next((other for other in others if other.endswith(f" {words}")), words)
