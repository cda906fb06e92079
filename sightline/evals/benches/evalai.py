"""The answer processor of EvalAI and the soft accuracy over ten human answers, as TextVQA's evaluators apply them.

Pure text to text; it reads no file and knows no benchmark, which is `textvqa`. The rules are those of the processor
that MMF and LLaVA ship (`m4c_evaluator.py`), its quirks included; the tables below are derived and not copied.
"""

import re
from collections.abc import Sequence

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBERS: dict[str, str] = {"none": "0", **{word: str(value) for value, word in enumerate(_NUMBERS)}}
ARTICLES = frozenset({"a", "an", "the"})

#: The contractions that are restored where one of their apostrophes is missing.
_CONTRACTIONS = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


CONTRACTIONS: dict[str, str] = {
    wrong: right for right in _CONTRACTIONS.split() for wrong in _without_one_apostrophe(right)
}
CONTRACTIONS["somebody'd"] = "somebodyd"  # the one entry of the official table that stands the wrong way round

#: Removed where a space stands beside one of them anywhere in the text, else made a space. Commas and question marks
#: never come so far.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`!'
_PERIOD = re.compile(r"\.(?!\d)")
#: The official call hands `re.UNICODE`, which is 32, to `sub` where the count stands.
_MOST_PERIODS = 32


def processed(text: str) -> str:
    """The answer in the form that is compared: lower case, numerals for number words, no articles, no punctuation."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    text = _without_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


def _without_punctuation(text: str) -> str:
    made = text
    for mark in _PUNCTUATION:
        # The original text decides, so that all marks of one kind go the same way.
        beside_space = f"{mark} " in text or f" {mark}" in text
        made = made.replace(mark, "" if beside_space else " ")
    return _PERIOD.sub("", made, count=_MOST_PERIODS)


def soft_accuracy(answer: str, human: Sequence[str]) -> float:
    """Agreement in [0, 1] with ten human answers (Antol et al. 2015, arXiv 1505.00468, sec. 3; as EvalAI computes it).

    Each human is left out in turn; the answer earns a third for each of the nine others who said the same, one at most;
    the result is the mean of the ten. So two who agree are worth 0.6, and three 0.9.
    """
    said, others = processed(answer), [processed(one) for one in human]
    earned = [min(1.0, (others.count(said) - (one == said)) / 3) for one in others]
    return sum(earned) / len(earned)
