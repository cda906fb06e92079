"""Metrics of every answer to every benchmark, so that a better score cannot hide its side effects.

They reveal alignment that only shortens answers, refuses, repeats itself or always says yes. The module knows no
benchmark; `scoring` adds these values to a benchmark's own, which take precedence where names coincide.
"""

import re
from collections.abc import Mapping

from sightline.evals.benchmark import DECIDED_BY_QUIRK, Benchmark, HasCaveats, count, mean
from sightline.evals.judging.verdicts import JudgedBenchmark
from sightline.evals.metrics import AnyMetric, Metric
from sightline.evals.questions import Reasoning, ReasoningTally
from sightline.records.rows import Answer, Estimate

_NGRAM = 4  # words; shorter phrases recur in honest prose

ANSWER_METRICS: dict[str, AnyMetric] = {
    "tokens": mean("answer_tokens", "Answer length in tokens", higher_is_better=None, unit="number"),
    "words": mean("answer_words", "Answer length in words", higher_is_better=None, unit="number"),
    "unfinished": mean("answer_unfinished", "Answers cut off by the token limit", higher_is_better=False),
    "refused": mean("answer_refuses", "Answers that refuse", higher_is_better=False),
    "repetition": Metric(
        label=f"Runs of {_NGRAM} words that the answer said before",
        numerator={"answer_repeated": 1},
        denominator={"answer_ngrams": 1},
        higher_is_better=False,
    ),
    "yes_ratio": Metric(
        label="Yes among answers that begin with yes or no",
        numerator={"answer_yes": 1},
        denominator={"answer_yes": 1, "answer_no": 1},
        higher_is_better=None,
    ),
    DECIDED_BY_QUIRK: count(DECIDED_BY_QUIRK, "Answers that an official default or quirk decided"),
}

#: Added where reasoning is stripped before scoring.
REASONING_METRICS: dict[str, AnyMetric] = {
    "reasoning_stripped": count("answer_reasoning", "Answers whose reasoning was left out"),
    "reasoning_cut": count("answer_reasoning_cut", "Answers cut off within their reasoning (empty)"),
}

#: Refusal phrases (Sightline's own list), searched in the first 200 characters.
_REFUSALS = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|afraid|unable|not able)|i apologi[sz]e|my apologies"
    r"|i (?:can ?not|can't|couldn't|could not|won't|will not|must decline)"
    r"|i do(?: not|n't) (?:see|have)(?: access to)? (?:an|any|the) (?:image|picture|photo)s?"
    r"|(?:as|i(?:'m| am)) an? (?:ai|artificial intelligence|language model|text-based)"
    r"|unable to (?:see|view|answer|help|assist|determine|provide)"
    r"|no image (?:was|is|has been) (?:provided|given|attached))\b",
    re.IGNORECASE,
)
_FIRST_WORD = re.compile(r"[^\W\d_]+")


def is_refusal(text: str) -> bool:
    """Whether an answer is a refusal, by Sightline's own list of phrases."""
    return _REFUSALS.search(text[:200].replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")) is not None


def repeated_ngrams(words: list[str]) -> tuple[int, int]:
    """(number of 4-grams of words that occurred before in the answer, number of all 4-grams)."""
    runs = len(words) - _NGRAM + 1
    if runs <= 0:
        return 0, 0
    return runs - len({tuple(words[start : start + _NGRAM]) for start in range(runs)}), runs


def answer_values(answer: Answer) -> dict[str, float | None]:
    """The values that `ANSWER_METRICS` sum; None where the answer file does not record one."""
    words = answer.text.lower().split()
    found = _FIRST_WORD.match(answer.text.lstrip(" \n\t\"'*"))
    first = found.group().lower() if found else ""
    repeated, runs = repeated_ngrams(words)
    return {
        "answer_tokens": None if answer.tokens is None else float(answer.tokens),
        "answer_words": float(len(words)),
        "answer_unfinished": None if answer.finished is None else float(not answer.finished),
        "answer_refuses": float(is_refusal(answer.text)),
        "answer_repeated": float(repeated),
        "answer_ngrams": float(runs),
        "answer_yes": float(first == "yes"),
        "answer_no": float(first == "no"),
        DECIDED_BY_QUIRK: 0.0,
    }


def reasoning_values(reasoning: Reasoning | None) -> dict[str, float | None]:
    """The values that `REASONING_METRICS` sum."""
    return {
        "answer_reasoning": float(reasoning is not None),
        "answer_reasoning_cut": float(reasoning is not None and reasoning.is_cut),
    }


def collect_caveats(
    benchmark: Benchmark, estimates: Mapping[str, Estimate], reasoning: ReasoningTally | None = None
) -> tuple[str, ...]:
    """Caveats on how a benchmark was scored; empty where scoring was official and no answer was ambiguous.

    `estimates` are those of the scored answers; they hold the number that a quirk of the official rule decided.
    """
    lines: list[str] = []
    if isinstance(benchmark, JudgedBenchmark) and not benchmark.verdicts.given:
        lines.append(benchmark.judge_note)
    if isinstance(benchmark, HasCaveats):
        lines += benchmark.caveats
    quirks = estimates.get(DECIDED_BY_QUIRK)
    if quirks is not None and quirks.value:
        lines.append(f"{quirks.value:.0f} of {quirks.n} answers were decided by an official default or quirk")
    if reasoning is not None and reasoning.found:
        lines += _reasoning_caveats(reasoning)
    return tuple(lines)


def _reasoning_caveats(reasoning: ReasoningTally) -> list[str]:
    share = f"{reasoning.found} of {reasoning.answers} answers"
    if not reasoning.strip:
        return [f"{share} hold reasoning in tags, read as part of the answer; --strip-reasoning scores what follows it"]
    lines = [f"the reasoning in {share} was left out before scoring"]
    if reasoning.cut:
        lines.append(f"{reasoning.cut} answers were cut off within their reasoning and are scored as empty")
    return lines
