"""The stage `sightline match generate`: new pairs that a language model generates from given ones (arXiv 2409.08185).

Each given pair yields one that matches and three that do not, in three styles: a brief prompt, a detailed one that asks
for hard cases, and the latter with similar pairs as examples. Pairs that break the format, are equal on both sides or
exist already are dropped and counted; `sightline match filter` checks the labels, as in the paper.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from sightline.config import Config
from sightline.data.samples import write_samples
from sightline.data.terminal import Progress
from sightline.data.texts import normalize
from sightline.errors import InputError
from sightline.recipes.matching.annotators import NO_REPLY, AnnotatorConfig, Style, generation_prompt, read_generated
from sightline.recipes.matching.entities.pairs import EntityPair, make_sample
from sightline.recipes.matching.samples import TRIGRAMS, annotate, cosines, read_pairs, round_robin
from sightline.records import Manifest, Sample
from sightline.records.manifest import Stage

BROKEN, STRANGE, SAME, KNOWN = "no pair in JSON", "other attributes", "both records are the same", "was there before"


class GenerateConfig(Config):
    """The annotator and the style of new pairs."""

    annotator: AnnotatorConfig = Field(description="the annotator that writes new pairs")
    style: Style = Field(description="how the annotator is prompted")
    examples: int = Field(default=3, ge=1, description="similar pairs that the style `similar` shows")
    similarity: str = Field(default=TRIGRAMS, description="trigrams, or sentence-transformers:DIRECTORY")
    with_given: bool = Field(default=False, description="write the given pairs before the new ones")
    wave: int = Field(default=64, gt=0, description="pairs given to the annotator together")


def generate_pairs(
    place: Path, config: GenerateConfig, seed: int, out: Path, progress: Progress | None = None
) -> Manifest:
    """Write the new pairs as samples.

    Raises:
        InputError: samples that are not about pairs, an annotator that cannot be opened, or no valid pair.
    """
    rows = read_pairs(place)
    annotator = config.annotator.open()
    stage = Stage.open(out, "match generate", config, {"samples": place, **config.annotator.inputs}, seed)
    if stage.done:
        return stage.manifest
    pairs = [pair for _, pair in rows]
    shown = _examples(pairs, config)
    prompts = [
        (sample, generation_prompt(pair, config.style, near)) for (sample, pair), near in zip(rows, shown, strict=True)
    ]
    dropped: Counter[str] = Counter()
    answers = annotate(annotator, prompts, config.wave, seed, progress)
    new = list(sound_pairs(pairs, list(answers), dropped))
    if not new:
        raise InputError(f"{place}: no valid pair was generated ({dict(dropped)}); check the model's replies")
    given: list[Sample] = [sample for sample, _ in rows] if config.with_given else []
    write_samples(out, [*given, *(make_sample(pair) for pair in new)])
    counts = {"samples": len(given) + len(new), "new": len(new), "new_matches": sum(pair.match for pair in new)}
    return stage.finish(counts=counts, dropped=dropped)


def sound_pairs(
    given: Sequence[EntityPair], replies: Sequence[str | None], dropped: Counter[str]
) -> Iterator[EntityPair]:
    """The valid pairs of the replies, each text of two records once; the others are counted in `dropped`."""
    known = {_key(pair) for pair in given}
    for pair, reply in zip(given, replies, strict=True):
        if reply is None:
            dropped[NO_REPLY] += 1
            continue
        found, broken = read_generated(reply)
        dropped.update({BROKEN: broken or int(not found)} if broken or not found else {})
        for number, (match, left, right) in enumerate(found):
            fields = {"id": f"{pair.id}/new-{number}", "left": left, "right": right, "match": match}
            new = pair.model_copy(update=fields)
            why = _drop_reason(new, set(pair.attributes), known)
            if why:
                dropped[why] += 1
            else:
                known.add(_key(new))
                yield new


def _drop_reason(new: EntityPair, attributes: set[str], known: set[tuple[str, str]]) -> str:
    if not {*new.left, *new.right} <= attributes or not all(new.texts):
        return STRANGE
    left, right = _key(new)
    if left == right:
        return SAME
    return KNOWN if (left, right) in known else ""


def _key(pair: EntityPair) -> tuple[str, str]:
    left, right = pair.texts
    return normalize(left), normalize(right)


def _examples(pairs: Sequence[EntityPair], config: GenerateConfig) -> list[list[EntityPair]]:
    """The most similar other pairs of each pair; none in the other styles."""
    if config.style != "similar":
        return [[] for _ in pairs]
    likeness = cosines(pairs, pairs, config.similarity)
    np.fill_diagonal(likeness, -np.inf)
    count = min(config.examples, len(pairs) - 1)
    return [[pairs[place] for place in round_robin(row[None], count)] for row in likeness]
