"""Benchmark: do two records match? Four prompts per labeled pair, parsed and counted as in arXiv 2409.08185.

F1, precision and recall of "match" under each prompt, their mean, the best of the four (as in the paper's tables), and
their spread. The best of four on the test rows rewards a wide spread, so claims use the mean. Two figures need no
model: F1 of "yes" to every pair, and of a string rule if one was learned (`match read`). An answer that is neither yes
nor no counts as no match, as in the paper; `f1_strict` and `accuracy` count it as wrong in any case. The pairs are
samples of `sightline match read`, in --data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from sightline.data.samples import SAMPLES, read_samples
from sightline.errors import InputError
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, Derived, Metric, average, mean
from sightline.recipes.matching.entities.pairs import (
    PROMPT_KEY,
    PROMPTS,
    RULE_KEY,
    is_quirk,
    make_sample,
    read_match,
    read_pair,
)
from sightline.recipes.matching.entities.rule import StringRule, read_rule
from sightline.records.rows import Answer, Sample, Score


def entity_matching(name: str, setting: BenchmarkOptions) -> "EntityMatching":
    """The benchmark on the samples in the folder; an InputError if there are none."""
    if not (setting.folder / SAMPLES).is_file():
        raise InputError(
            f"{name} asks about the pairs in --data, and {setting.folder} has no {SAMPLES}; make it with "
            "`sightline match read`"
        )
    return EntityMatching(name, setting.folder, setting.limit)


@dataclass(frozen=True)
class EntityMatching:
    """Each pair under each prompt; `limit` counts pairs. The pair is the cluster, so it is resampled as a unit."""

    name: str
    folder: Path
    limit: int | None = None
    max_new_tokens: int = 32

    @cached_property
    def rule(self) -> StringRule | None:
        """The string rule beside the samples."""
        return read_rule(self.folder)

    @cached_property
    def metrics(self) -> Mapping[str, AnyMetric]:
        metrics: dict[str, AnyMetric] = {}
        for prompt in PROMPTS:
            metrics |= {f"{prompt}_{name}": metric for name, metric in _shares(prompt).items()}
        for name, label in (("f1", "F1"), ("precision", "Precision"), ("recall", "Recall")):
            parts = tuple(f"{prompt}_{name}" for prompt in PROMPTS)
            is_f1 = name == "f1"
            metrics[name] = average(parts, f"{label}, mean of the prompts", higher_is_better=True, primary=is_f1)
        every = {f"{prompt}_f1": 1.0 for prompt in PROMPTS}
        metrics["f1_best"] = Derived(label="F1, best prompt", kind="greatest", parts=every, higher_is_better=True)
        metrics["f1_spread"] = Derived(
            label="Standard deviation of F1 over the prompts", kind="spread", parts=every, higher_is_better=False
        )
        metrics["f1_strict"] = average(
            tuple(f"{prompt}_f1_strict" for prompt in PROMPTS),
            "F1 with unparsed answers as wrong, mean of the prompts",
            higher_is_better=True,
        )
        metrics["accuracy"] = mean("correct", "Accuracy (unparsed answers are wrong)", higher_is_better=True)
        metrics["unparsed"] = mean("unparsed", "Answers that are neither yes nor no", higher_is_better=False)
        return metrics | _without_model(self.rule)

    def samples(self) -> Iterator[Sample]:
        for row in islice(read_samples(self.folder), self.limit):
            pair = read_pair(row, str(self.folder / SAMPLES))
            by_rule = {} if self.rule is None else {RULE_KEY: self.rule.matches(pair)}
            for prompt in PROMPTS:
                sample = make_sample(pair, prompt)
                yield sample.model_copy(
                    update={"id": f"{pair.id}/{prompt}", "truth": {**sample.truth, PROMPT_KEY: prompt} | by_rule}
                )

    def groups(self, sample: Sample) -> tuple[str, ...]:
        return (str(sample.truth[PROMPT_KEY]),)

    def score(self, sample: Sample, answer: Answer) -> Score:
        parsed, truth = read_match(answer.text), bool(sample.truth["match"])
        values: dict[str, float | None] = {
            "true_positive": float(parsed is True and truth),
            "false_positive": float(parsed is True and not truth),
            "false_negative": float(parsed is not True and truth),
            "unparsed": float(parsed is None),
            "unparsed_other": float(parsed is None and not truth),
            "correct": float(parsed is truth),
            DECIDED_BY_QUIRK: float(is_quirk(answer.text)),
            "matches": float(truth),
            "pairs": 1.0,
        }
        if RULE_KEY in sample.truth:
            by_rule = bool(sample.truth[RULE_KEY])
            values |= {"rule_right": float(by_rule and truth), "rule_matches": float(by_rule)}
        names = {True: "match", False: "no match", None: "neither"}
        details = {"parsed": names[parsed], "truth": names[truth]}
        return Score(
            sample_id=answer.sample_id,
            cluster=answer.cluster,
            groups=self.groups(sample),
            values=values,
            details=details,
        )


def _without_model(rule: StringRule | None) -> dict[str, AnyMetric]:
    """F1 = 2 tp / (predicted + true matches) of yes to every pair and of the rule; no direction, as no model acts."""
    metrics: dict[str, AnyMetric] = {
        "f1_yes_to_all": Metric(
            label="F1 of yes to every pair (no model)",
            numerator={"matches": 2},
            denominator={"matches": 1, "pairs": 1},
            higher_is_better=None,
        )
    }
    if rule is not None:
        metrics["f1_string_rule"] = Metric(
            label=f"F1 of a threshold on trigrams, learned on {rule.rows} rows (no model)",
            numerator={"rule_right": 2},
            denominator={"matches": 1, "rule_matches": 1},
            higher_is_better=None,
        )
    return metrics


def _shares(prompt: str) -> dict[str, AnyMetric]:
    """The figures of one prompt; F1 = 2 tp / (2 tp + fp + fn)."""
    errors = {"false_positive": 1.0, "false_negative": 1.0}
    forms: dict[str, tuple[str, dict[str, float], dict[str, float]]] = {
        "f1": ("F1", {"true_positive": 2}, {"true_positive": 2, **errors}),
        "precision": ("Precision", {"true_positive": 1}, {"true_positive": 1, "false_positive": 1}),
        "recall": ("Recall", {"true_positive": 1}, {"true_positive": 1, "false_negative": 1}),
        "f1_strict": (
            "F1 with unparsed answers as wrong",
            {"true_positive": 2},
            {"true_positive": 2, **errors, "unparsed_other": 1},
        ),
    }
    metrics: dict[str, AnyMetric] = {
        name: Metric(
            label=f"{label} ({prompt})", numerator=top, denominator=bottom, higher_is_better=True, group=prompt
        )
        for name, (label, top, bottom) in forms.items()
    }
    metrics["unparsed"] = mean(
        "unparsed", f"Answers that are neither yes nor no ({prompt})", higher_is_better=False, group=prompt
    )
    return metrics
