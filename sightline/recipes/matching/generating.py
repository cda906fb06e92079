"""The stage `sightline match generate`: pairs that a language model invents after given ones (arXiv 2409.08185).

For each given pair one that matches and three that do not, in three styles: a brief prompt, a detailed one that wants
hard cases, and that with similar pairs as examples. What breaks the form, is the same on both sides or was there before
is dropped and counted; whether a label is right is left to `sightline match filter`, as in the paper.
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
from sightline.recipes.matching.entities.pairs import EntityPair, sample_of
from sightline.recipes.matching.samples import TRIGRAMS, by_turns, cosines, read_pairs, replies
from sightline.records import Manifest, Sample
from sightline.records.manifest import Stage

BROKEN, STRANGE, SAME, KNOWN = "no pair in JSON", "other attributes", "both records are the same", "was there before"


class GenerateConfig(Config):
    """Who invents, and in which style; `with_given` has the given pairs before the new ones."""

    annotator: AnnotatorConfig
    style: Style
    examples: int = Field(default=3, ge=1, description="similar pairs that the style `similar` shows")
    similarity: str = Field(default=TRIGRAMS, description="trigrams, or sentence-transformers:DIRECTORY")
    with_given: bool = False
    wave: int = Field(default=64, gt=0, description="pairs given to the annotator together")


def generate_pairs(
    place: Path, config: GenerateConfig, seed: int, out: Path, progress: Progress | None = None
) -> Manifest:
    """Write the new pairs as samples.

    Raises:
        InputError: samples that ask about no pair, an annotator that cannot be asked, or nothing sound came of it.
    """
    rows = read_pairs(place)
    annotator = config.annotator.open()
    stage = Stage.open(out, "match generate", config, {"samples": place, **config.annotator.inputs}, seed)
    if stage.done:
        return stage.manifest
    pairs = [pair for _, pair in rows]
    shown = _examples(pairs, config)
    asked = [
        (sample, generation_prompt(pair, config.style, near)) for (sample, pair), near in zip(rows, shown, strict=True)
    ]
    dropped: Counter[str] = Counter()
    told = replies(annotator, asked, config.wave, seed, progress)
    new = list(sound(pairs, list(told), dropped))
    if not new:
        raise InputError(f"{place}: nothing sound was invented ({dict(dropped)}); look at the model's replies")
    made: list[Sample] = [sample for sample, _ in rows] if config.with_given else []
    write_samples(out, [*made, *(sample_of(pair) for pair in new)])
    counts = {"samples": len(made) + len(new), "new": len(new), "new_matches": sum(pair.match for pair in new)}
    return stage.finish(counts=counts, dropped=dropped)


def sound(given: Sequence[EntityPair], told: Sequence[str | None], dropped: Counter[str]) -> Iterator[EntityPair]:
    """The pairs of the replies that hold what was asked for, each text of two records once; the others are counted."""
    known = {_key(pair) for pair in given}
    for pair, reply in zip(given, told, strict=True):
        if reply is None:
            dropped[NO_REPLY] += 1
            continue
        found, broken = read_generated(reply)
        dropped.update({BROKEN: broken or int(not found)} if broken or not found else {})
        for number, (match, left, right) in enumerate(found):
            fields = {"id": f"{pair.id}/new-{number}", "left": left, "right": right, "match": match}
            new = pair.model_copy(update=fields)
            why = _refusal(new, set(pair.attributes), known)
            if why:
                dropped[why] += 1
            else:
                known.add(_key(new))
                yield new


def _refusal(new: EntityPair, attributes: set[str], known: set[tuple[str, str]]) -> str:
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
    """Of each pair those that are most like it, itself left out; none in the other styles."""
    if config.style != "similar":
        return [[] for _ in pairs]
    likeness = cosines(pairs, pairs, config.similarity)
    np.fill_diagonal(likeness, -np.inf)
    count = min(config.examples, len(pairs) - 1)
    return [[pairs[place] for place in by_turns(row[None], count)] for row in likeness]
