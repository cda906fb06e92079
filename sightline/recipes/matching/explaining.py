"""The stage `sightline match explain`: references get explanations behind their label (arXiv 2409.08185).

By a language model that is told the label, as in the paper, or structured ones by the similarity of strings. Rows whose
reply breaks the form are dropped and counted.
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
from sightline.recipes.matching.annotators import LONG, NO_REPLY, STRUCTURED, AnnotatorConfig, about, short_prompt
from sightline.recipes.matching.entities.pairs import EntityPair, sample_of
from sightline.recipes.matching.samples import read_pairs, replies
from sightline.recipes.matching.structured import ComparedAttribute, from_strings, means_of, read_structured
from sightline.records import Manifest, Sample
from sightline.records.manifest import Stage

BROKEN = "the explanation breaks the form"


class ExplainConfig(Config):
    """What is explained, and by whom; `annotator: null` makes structured explanations of strings.

    `importance` and `similarity` are the numbers of a structured line; the paper's ablations leave out the first, or
    both.
    """

    format: Literal["structured", "long", "short"]
    importance: bool = True
    similarity: bool = True
    annotator: AnnotatorConfig | None
    wave: int = Field(default=64, gt=0, description="pairs given to the annotator together")

    @model_validator(mode="after")
    def _words_need_an_author(self) -> "ExplainConfig":
        if self.annotator is None and self.format != "structured":
            raise ValueError(f"format {self.format} needs an annotator that writes it; name one, or set structured")
        return self


def explain(place: Path, config: ExplainConfig, seed: int, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the samples with explanations in their references, in the order that they had.

    Raises:
        InputError: samples that ask about no pair, an annotator that cannot be asked, or no row is left.
    """
    rows = read_pairs(place)
    annotator = None if config.annotator is None else config.annotator.open()
    named = {} if config.annotator is None else config.annotator.inputs
    stage = Stage.open(out, "match explain", config, {"samples": place, **named}, seed)
    if stage.done:
        return stage.manifest
    dropped: Counter[str] = Counter()
    if annotator is None:
        means = means_of(pair for _, pair in rows)
        told: list[str | None] = [lines_of(from_strings(pair, means), config) for _, pair in rows]
    else:
        asked = [(sample, prompt_of(pair, config.format)) for sample, pair in rows]
        told = [
            None if reply is None else explanation_of(reply, config)
            for reply in replies(annotator, asked, config.wave, seed, progress)
        ]
        dropped[NO_REPLY] = told.count(None)
        dropped[BROKEN] = told.count("")
    made = [explained(sample, pair, text) for (sample, pair), text in zip(rows, told, strict=True) if text]
    if not made:
        raise InputError(
            f"{place}: of {len(rows)} pairs none has an explanation ({dict(dropped)}); ask a stronger model"
        )
    write_samples(out, made)
    return stage.finish(counts={"samples": len(made)}, dropped={name: n for name, n in dropped.items() if n})


def prompt_of(pair: EntityPair, form: str) -> str:
    """What an annotator is told."""
    return short_prompt(pair) if form == "short" else about(pair, STRUCTURED if form == "structured" else LONG)


def explanation_of(reply: str, config: ExplainConfig) -> str:
    """The explanation of a reply; empty where it breaks the form."""
    if config.format != "structured":
        return " ".join(reply.split()) if config.format == "short" else reply.strip()
    found = read_structured(reply)
    return "" if found is None else lines_of(found, config)


def lines_of(compared: Sequence[ComparedAttribute], config: ExplainConfig) -> str:
    """A structured explanation with the numbers that the config wants."""
    return "\n".join(one.line(importance=config.importance, similarity=config.similarity) for one in compared)


def explained(sample: Sample, pair: EntityPair, explanation: str) -> Sample:
    """The sample with label and explanation as its reference."""
    return sample.model_copy(update={"reference": sample_of(pair, explanation=explanation).reference})
