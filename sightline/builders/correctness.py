"""Right answers against wrong ones, separated by their final answer: the correctness pipeline of MPO (arXiv
2411.10442).

For prompts with one short true answer. An answer without a clear final answer is wrong. `is_right` compares final
answers; choices that the paper leaves open are in `CorrectnessConfig`.
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
from sightline.builders.sampled_answers import (
    CHOICES,
    Unanswered,
    answer_requests,
    count_tokens,
    distinct_answers,
    sample_answers,
)
from sightline.models.context import RunContext
from sightline.models.requests import Generation, Prefix, make_prefix
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
    """Settings of correctness pairs. The paper: up to 32 answers at temperature 1, at most 15 pairs per question."""

    samples: int = Field(default=32, ge=2, description="answers sampled per prompt")
    pairs: int = Field(default=15, ge=1, description="maximum pairs per prompt")
    marker: str = Field(default=MARKER, description="text before the final answer; empty: the whole answer is final")
    suffix: str | None = Field(
        default=None, description="appended to the prompt; default: a request for reasoning and a last line with marker"
    )
    suffix_in_pair: bool = Field(default=True, description="the pair's prompt keeps the suffix")
    tolerance: float = Field(default=0.0, ge=0, lt=1, description="relative error allowed for numbers")

    @model_validator(mode="after")
    def _blank_marker(self) -> "CorrectnessConfig":
        if self.marker and not self.marker.strip():
            raise ValueError("marker is white space; use letters, or leave it empty")
        return self

    @property
    def prompt_suffix(self) -> str:
        """The suffix, or the default one for the marker."""
        if self.suffix is not None or not self.marker:
            return self.suffix or ""
        return f"\nReason step by step. Then end with one line of the form '{self.marker} ...'."


@dataclass(frozen=True)
class _CheckedAnswer:
    """An answer and its final answer, if it has a clear one."""

    text: str
    final: str | None


def build_correctness(
    samples: Iterable[Sample], context: RunContext, config: CorrectnessConfig
) -> Iterator[BuildResult]:
    """Yield up to `pairs` pairs per sample, in order; a row depends on (sample, seed) alone."""
    for wave in batched(samples, config.wave):
        references = [require_reference(sample) for sample in wave]
        requests = [answer_requests(s, _prefix(s, context, config), context.seed, config.samples) for s in wave]
        for sample, reference, answers in zip(wave, references, sample_answers(context, requests, config), strict=True):
            yield _make_result(sample, reference, answers, context.seed, config)


def final_answer(text: str, marker: str) -> str | None:
    """Return the text after the last marker, to the end of its line or else on the next line; None if there is none."""
    if not marker:
        return text.strip() or None
    places = list(re.finditer(re.escape(marker), text, re.IGNORECASE))
    lines = text[places[-1].end() :].strip(" \t\r\n*_").splitlines() if places else []
    return (lines[0].strip(" \t*_") or None) if lines else None


def is_right(answer: str, reference: str, tolerance: float = 0.0) -> bool:
    """Whether two final answers agree: as letters of a multiple choice, as numbers, or as normalized text.

    If only one side has a letter, the text after the letter is compared.
    """
    letters = [_parse_choice(text) for text in (answer, reference)]
    if letters[0] and letters[1]:
        return letters[0][0] == letters[1][0]
    texts = [choice[1] if choice else text for choice, text in zip(letters, (answer, reference), strict=True)]
    one, two = map(normalize_answer, (text or whole for text, whole in zip(texts, (answer, reference), strict=True)))
    first, second = _parse_number(one), _parse_number(two)
    if first is None or second is None or one == two:
        return one == two
    return abs(first - second) <= tolerance * abs(second)


def normalize_answer(text: str) -> str:
    """Fold case, drop articles and punctuation, write number words up to ninety-nine as digits, and collapse spaces.

    Signs and points of numbers, fraction bars and mathematical signs stay, as does a text of articles and punctuation
    only.
    """
    folded = re.sub(r"\\boxed\{([^{}]*)\}", r"\1", text.casefold().replace("\u2212", "-"))
    whole = re.sub(r"(?<=\d),(?=\d{3}(?!\d))|['\u2019]", "", folded)
    parted = "".join(_keep_character(whole, place) for place in range(len(whole)))
    words = [word for word in parted.split() if word not in ("a", "an", "the")]
    return " ".join(_numbers_as_digits(words)) or " ".join(folded.split())


def even_pairs(right: int, wrong: int, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Draw at most `count` distinct (right, wrong) index pairs; uses of any two indices differ by at most one."""
    rights, wrongs = rng.permutation(right), rng.permutation(wrong)
    lap = math.lcm(right, wrong)  # after this many steps the pairs would repeat, so one side shifts
    return [(int(rights[i % right]), int(wrongs[(i + i // lap) % wrong])) for i in range(min(count, right * wrong))]


def _prefix(sample: Sample, context: RunContext, config: CorrectnessConfig) -> Prefix:
    return replace(make_prefix(sample, context.folder), prompt=sample.prompt + config.prompt_suffix)


def _parse_choice(text: str) -> tuple[str, str] | None:
    """Parse the letter of a multiple choice and the text after it: (b), B., B) dog, option B."""
    found = _CHOICE.fullmatch(text.strip().strip("*_").casefold())
    return (found[1], found[2].strip()) if found else None


def _parse_number(text: str) -> float | None:
    """Return the number that a normalized text is, or None."""
    fraction = _FRACTION.fullmatch(text)
    if fraction and float(fraction[2]):
        return float(fraction[1]) / float(fraction[2])
    return float(text) if _NUMBER.fullmatch(text) else None


def _keep_character(text: str, place: int) -> str:
    """Return the replacement of one character: letters, marks, digits, mathematical signs and parts of numbers stay."""
    sign, kind = text[place], unicodedata.category(text[place])
    if kind[0] in "LMN" or sign == "^":
        return sign
    if kind == "Sm":
        return f" {sign} "
    ahead = text[place + 1 : place + 3]
    opens = bool(re.match(r"\.?\d" if sign == "-" else r"\d", ahead))
    return sign if sign in "-./" and opens else " "


def _numbers_as_digits(words: Sequence[str]) -> Iterator[str]:
    """Yield the words with numbers as digits; twenty and one give 21."""
    tens = 0
    for word, following in zip_longest(words, words[1:]):
        if word in _TENS and following in _ONES[1:]:
            tens = _TENS[word]
        else:
            yield str(tens + _NUMBERS[word]) if word in _NUMBERS else word
            tens = 0


def _make_result(
    sample: Sample, reference: str, answers: Sequence[Generation] | Unanswered, seed: int, config: CorrectnessConfig
) -> BuildResult:
    if isinstance(answers, Unanswered):
        return answers.result(sample)
    right, wrong = _sort_answers(answers, final_answer(reference, config.marker) or reference, config)
    tallies: dict[str, float] = {
        "generated_tokens": count_tokens(answers),
        "right_answers": len(right),
        "wrong_answers": len(wrong),
        "unfinished_answers": sum(not answer.finished for answer in answers),
    }
    if not right or not wrong:
        reason = ALL_RIGHT if right else ALL_WRONG if wrong else NO_ANSWER
        return BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies)
    behind = config.prompt_suffix if config.suffix_in_pair else ""
    shared = {
        "answers": len(answers),
        "right": len(right),
        "wrong": len(wrong),
        "suffix_in_prompt": bool(behind),
        "tokens": count_tokens(answers),
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


def _sort_answers(
    answers: Sequence[Generation], reference: str, config: CorrectnessConfig
) -> tuple[list[_CheckedAnswer], list[_CheckedAnswer]]:
    """Split distinct answers into right and wrong ones; a truncated answer has no clear final answer."""
    right: list[_CheckedAnswer] = []
    wrong: list[_CheckedAnswer] = []
    for answer in distinct_answers(answers):
        final = final_answer(answer.text, config.marker) if answer.finished else None
        side = right if final is not None and is_right(final, reference, config.tolerance) else wrong
        side.append(_CheckedAnswer(answer.text, final))
    return right, wrong


CORRECTNESS = Builder(
    name="correctness",
    summary="Sample answers, separate right from wrong by the final answer, pair them (MPO, arXiv 2411.10442).",
    config=CorrectnessConfig,
    build=build_correctness,
    needs_reference=always,
    remedy="sample more answers, raise the temperature or max_new_tokens, or check that the prompt asks for the marker",
)
