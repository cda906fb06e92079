"""The stage `sightline match explain`: add explanations to the references, after the label (arXiv 2409.08185).

A language model that is given the label writes them, as in the paper, or structured ones come from string similarity.
Rows whose reply breaks the format are dropped and counted.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from sightline.config import Config
from sightline.data.samples import write_samples
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.recipes.matching.annotators import LONG, NO_REPLY, STRUCTURED, AnnotatorConfig, pair_prompt, short_prompt
from sightline.recipes.matching.entities.pairs import EntityPair, make_sample
from sightline.recipes.matching.samples import annotate, read_pairs
from sightline.recipes.matching.structured import ComparedAttribute, attribute_means, compare_strings, read_structured
from sightline.records import Manifest, Sample
from sightline.records.manifest import Stage

BROKEN = "the explanation breaks the form"


class ExplainConfig(Config):
    """The format and the author of explanations."""

    format: Literal["structured", "long", "short"] = Field(description="structured lines, long texts or short texts")
    importance: bool = Field(
        default=True,
        description="include the importance of each attribute in structured lines; an ablation of the paper omits it",
    )
    similarity: bool = Field(
        default=True,
        description="include the similarity of each attribute in structured lines; an ablation of the paper omits both",
    )
    annotator: AnnotatorConfig | None = Field(
        description="the author of the explanations; null: structured ones computed from strings"
    )
    wave: int = Field(default=64, gt=0, description="pairs given to the annotator together")

    @model_validator(mode="after")
    def _check_annotator(self) -> "ExplainConfig":
        if self.annotator is None and self.format != "structured":
            raise ValueError(f"format {self.format} needs an annotator; name one, or use structured")
        return self


def explain(place: Path, config: ExplainConfig, seed: int, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the samples with explanations in their references, in the original order.

    Raises:
        InputError: samples that are not about pairs, an annotator that cannot be opened, or no row is left.
    """
    rows = read_pairs(place)
    annotator = None if config.annotator is None else config.annotator.open()
    named = {} if config.annotator is None else config.annotator.inputs
    stage = Stage.open(out, "match explain", config, {"samples": place, **named}, seed)
    if stage.done:
        return stage.manifest
    dropped: Counter[str] = Counter()
    if annotator is None:
        means = attribute_means(pair for _, pair in rows)
        explanations: list[str | None] = [format_explanation(compare_strings(pair, means), config) for _, pair in rows]
    else:
        prompts = [(sample, explanation_prompt(pair, config.format)) for sample, pair in rows]
        explanations = [
            None if reply is None else read_explanation(reply, config)
            for reply in annotate(annotator, prompts, config.wave, seed, progress)
        ]
        dropped[NO_REPLY] = explanations.count(None)
        dropped[BROKEN] = explanations.count("")
    samples = [
        add_explanation(sample, pair, text) for (sample, pair), text in zip(rows, explanations, strict=True) if text
    ]
    if not samples:
        raise InputError(
            f"{place}: none of {len(rows)} pairs has an explanation ({dict(dropped)}); use a stronger model"
        )
    write_samples(out, samples)
    return stage.finish(counts={"samples": len(samples)}, dropped={name: n for name, n in dropped.items() if n})


def explanation_prompt(pair: EntityPair, form: str) -> str:
    """The annotator's prompt."""
    return short_prompt(pair) if form == "short" else pair_prompt(pair, STRUCTURED if form == "structured" else LONG)


def read_explanation(reply: str, config: ExplainConfig) -> str:
    """The explanation of a reply; empty if it breaks the format."""
    if config.format != "structured":
        return " ".join(reply.split()) if config.format == "short" else reply.strip()
    found = read_structured(reply)
    return "" if found is None else format_explanation(found, config)


def format_explanation(compared: Sequence[ComparedAttribute], config: ExplainConfig) -> str:
    """A structured explanation with the numbers that the config includes."""
    return "\n".join(one.line(importance=config.importance, similarity=config.similarity) for one in compared)


def add_explanation(sample: Sample, pair: EntityPair, explanation: str) -> Sample:
    """The sample with label and explanation as its reference."""
    return sample.model_copy(update={"reference": make_sample(pair, explanation=explanation).reference})
