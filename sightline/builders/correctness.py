"""Right answers against wrong ones, told apart by their last line: the correctness pipeline of MPO (arXiv 2411.10442).

For prompts with one short true answer. An answer without a clear final answer is wrong. How two final answers are
compared is `is_right`; where the paper is silent, the choice stands in `CorrectnessConfig`.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
from pydantic import Field, model_validator

from sightline.builders.builder import (
    Builder,
    BuildResult,
    SampledConfig,
    always,
    batched,
    make_pair,
    require_reference,
    sample_rng,
)
from sightline.builders.sampled_answers import CHOICES, distinct, k_requests, say, tokens_of
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.requests import Generation, Prefix, prefix_of
from sightline.records import Sample

ALL_RIGHT, ALL_WRONG, NO_ANSWER = "all right", "all wrong", "the model says nothing"
MARKER = "Final Answer:"

_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_TEENS = [
    "ten",
    "eleven",
    "twelve",
    *(f"{start}teen" for start in ("thir", "four", "fif", "six", "seven", "eigh", "nine")),
]
_TENS = {
    f"{start}ty": 10 * n for n, start in enumerate(("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine"), 2)
}
_NUMBERS = {word: n for n, word in enumerate(_ONES + _TEENS)} | _TENS
_CHOICE = re.compile(r"(?:(?:option|choice|answer)\s+)?\(?([a-j])(?:\)\s*|[.:](?:\s+|$)|$)(.*)", re.DOTALL)
_FRACTION = re.compile(r"(-?[0-9]+)/([0-9]+)")
_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)")


class CorrectnessConfig(SampledConfig):
    """Settings of correctness pairs. The paper: up to 32 answers at temperature 1, at most 15 pairs a question."""

    samples: int = Field(default=32, ge=2, description="answers sampled to each prompt")
    pairs: int = Field(default=15, ge=1, description="most pairs of one prompt")
    marker: str = Field(default=MARKER, description="stands before the final answer; empty: all is the final answer")
    suffix: str | None = Field(
        default=None, description="put behind the prompt; by default it asks for reasoning and a last line with marker"
    )
    suffix_in_pair: bool = Field(default=True, description="the pair's prompt holds the suffix too")
    tolerance: float = Field(default=0.0, ge=0, lt=1, description="numbers may be wrong by this share of the true one")

    @model_validator(mode="after")
    def _blank_marker(self) -> "CorrectnessConfig":
        if self.marker and not self.marker.strip():
            raise ValueError("marker is white space; give it letters, or leave it empty")
        return self

    @property
    def behind_prompt(self) -> str:
        """The suffix, or the one that goes with the marker."""
        if self.suffix is not None or not self.marker:
            return self.suffix or ""
        return f"\nReason step by step. Then end with one line of the form '{self.marker} ...'."


@dataclass(frozen=True)
class _Checked:
    """An answer and its final answer, where it has a clear one."""

    text: str
    final: str | None


def build_correctness(samples: Iterable[Sample], tools: RunContext, config: CorrectnessConfig) -> Iterator[BuildResult]:
    """Up to `pairs` pairs a sample, in order; a row depends on (sample, seed) alone."""
    for wave in batched(samples, config.wave):
        references = [require_reference(sample) for sample in wave]
        asked = [k_requests(s, _prefix(s, tools, config), tools.seed, config.samples) for s in wave]
        for sample, reference, answers in zip(wave, references, say(tools, asked, config), strict=True):
            yield _made(sample, reference, answers, tools.seed, config)


def final_answer(text: str, marker: str) -> str | None:
    """What stands behind the last marker, to the end of its line or else on the next; None where there is nothing."""
    if not marker:
        return text.strip() or None
    places = list(re.finditer(re.escape(marker), text, re.IGNORECASE))
    lines = text[places[-1].end() :].strip(" \t\r\n*_").splitlines() if places else []
    return (lines[0].strip(" \t*_") or None) if lines else None


def is_right(answer: str, reference: str, tolerance: float = 0.0) -> bool:
    """Whether two final answers are the same: as a letter of a multiple choice, as numbers, or as normalized text.

    Where one side has a letter and the other has none, what stands behind the letter is compared.
    """
    letters = [_choice(text) for text in (answer, reference)]
    if letters[0] and letters[1]:
        return letters[0][0] == letters[1][0]
    texts = [choice[1] if choice else text for choice, text in zip(letters, (answer, reference), strict=True)]
    one, two = map(normalized, (text or whole for text, whole in zip(texts, (answer, reference), strict=True)))
    first, second = _value(one), _value(two)
    if first is None or second is None or one == two:
        return one == two
    return abs(first - second) <= tolerance * abs(second)


def normalized(text: str) -> str:
    """Case folded, without articles and punctuation, number words up to ninety-nine as digits, one space between words.

    Signs and points of numbers, bars of fractions and mathematical signs stay; so does a text that is articles and
    punctuation only.
    """
    folded = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text.casefold().replace("\u2212", "-"))
    whole = re.sub(r"(?<=\d),(?=\d{3}(?!\d))|['\u2019]", "", folded)
    parted = "".join(_kept(whole, place) for place in range(len(whole)))
    words = [word for word in parted.split() if word not in ("a", "an", "the")]
    return " ".join(_digits(words)) or " ".join(folded.split())


def even_pairs(right: int, wrong: int, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """At most `count` different pairs of (right, wrong) indices, at random, each index as often as any other or once
    more.
    """
    rights, wrongs = rng.permutation(right), rng.permutation(wrong)
    lap = math.lcm(right, wrong)  # after so many steps along both the pairs would come again, so one side moves on
    return [(int(rights[i % right]), int(wrongs[(i + i // lap) % wrong])) for i in range(min(count, right * wrong))]


def _prefix(sample: Sample, tools: RunContext, config: CorrectnessConfig) -> Prefix:
    return replace(prefix_of(sample, tools.folder), prompt=sample.prompt + config.behind_prompt)


def _choice(text: str) -> tuple[str, str] | None:
    """The letter of a multiple choice and what stands behind it: (b), B., B) dog, option B."""
    found = _CHOICE.fullmatch(text.strip().strip("*_").casefold())
    return (found[1], found[2].strip()) if found else None


def _value(text: str) -> float | None:
    """The number that a normalized text is."""
    fraction = _FRACTION.fullmatch(text)
    if fraction and float(fraction[2]):
        return float(fraction[1]) / float(fraction[2])
    return float(text) if _NUMBER.fullmatch(text) else None


def _kept(text: str, place: int) -> str:
    """What stays of one character: letters, marks, digits and mathematical signs, and what belongs to a number."""
    sign, kind = text[place], unicodedata.category(text[place])
    if kind[0] in "LMN" or sign == "^":
        return sign
    if kind == "Sm":
        return f" {sign} "
    ahead = text[place + 1 : place + 3]
    opens = bool(re.match(r"\.?\d" if sign == "-" else r"\d", ahead))
    return sign if sign in "-./" and opens else " "


def _digits(words: Sequence[str]) -> Iterator[str]:
    """The words with numbers as digits; twenty and one are 21."""
    tens = 0
    for word, following in zip_longest(words, words[1:]):
        if word in _TENS and following in _ONES[1:]:
            tens = _TENS[word]
        else:
            yield str(tens + _NUMBERS[word]) if word in _NUMBERS else word
            tens = 0


def _made(
    sample: Sample, reference: str, answers: Sequence[Generation] | None, seed: int, config: CorrectnessConfig
) -> BuildResult:
    if answers is None:
        return BuildResult(sample_id=sample.id, dropped=TOO_LONG)
    right, wrong = _sorted(answers, final_answer(reference, config.marker) or reference, config)
    tallies: dict[str, float] = {
        "generated_tokens": tokens_of(answers),
        "right_answers": len(right),
        "wrong_answers": len(wrong),
        "unfinished_answers": sum(not answer.finished for answer in answers),
    }
    if not right or not wrong:
        reason = ALL_RIGHT if right else ALL_WRONG if wrong else NO_ANSWER
        return BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies)
    behind = config.behind_prompt if config.suffix_in_pair else ""
    shared = {
        "answers": len(answers),
        "right": len(right),
        "wrong": len(wrong),
        "suffix_in_prompt": bool(behind),
        "tokens": tokens_of(answers),
    }
    pairs = []
    drawn = even_pairs(len(right), len(wrong), config.pairs, sample_rng(seed, sample, CHOICES))
    for number, (good, bad) in enumerate(drawn):
        chosen, rejected = right[good], wrong[bad]
        finals = {"chosen_final": chosen.final, "rejected_final": rejected.final}
        pair = make_pair(
            sample,
            CORRECTNESS.name,
            chosen.text,
            rejected.text,
            suffix=f"-{number:03d}",
            prompt=sample.prompt + behind,
            provenance={**finals, **shared},
        )
        pairs.append(pair)
    return BuildResult(sample_id=sample.id, pairs=tuple(pairs), tallies=tallies)


def _sorted(
    answers: Sequence[Generation], reference: str, config: CorrectnessConfig
) -> tuple[list[_Checked], list[_Checked]]:
    """The different answers, right and wrong ones; a line that was cut off is no clear answer, whatever it says."""
    right: list[_Checked] = []
    wrong: list[_Checked] = []
    for answer in distinct(answers):
        final = final_answer(answer.text, config.marker) if answer.finished else None
        side = right if final is not None and is_right(final, reference, config.tolerance) else wrong
        side.append(_Checked(answer.text, final))
    return right, wrong


CORRECTNESS = Builder(
    name="correctness",
    summary="Sample answers, tell right from wrong by the final answer, pair them (MPO, arXiv 2411.10442).",
    config=CorrectnessConfig,
    build=build_correctness,
    needs_reference=always,
    remedy="sample more answers, raise the temperature or max_new_tokens, or see that the prompt asks for the marker",
)
