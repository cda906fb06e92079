"""The stage `sightline match filter`: keep pairs whose label a model reproduces, or that it finds worth learning from.

arXiv 2409.08185 filters by a stronger model's own label first, then the rest by its opinion. A pair without a reply is
dropped and counted.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import Field

from sightline.config import Config
from sightline.data.samples import write_samples
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.recipes.matching.annotators import INTERESTING, NO_REPLY, AnnotatorConfig, pair_prompt
from sightline.recipes.matching.entities.pairs import EntityPair, match_prompt, read_match
from sightline.recipes.matching.samples import annotate, read_pairs
from sightline.records import Manifest
from sightline.records.manifest import Stage

UNPARSED, OTHER_LABEL, DULL = "the reply is neither yes nor no", "the model says another label", "not worth learning"
#: The prompt for a label; the paper does not state which of its prompts it uses.
LABEL_PROMPT = "complex-force"
_YES_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


class FilterConfig(Config):
    """The criterion and the annotator."""

    by: Literal["label", "interesting"] = Field(
        description="keep pairs whose label the annotator confirms, or those it finds interesting"
    )
    annotator: AnnotatorConfig = Field(description="the annotator that decides")
    wave: int = Field(default=64, gt=0, description="pairs given to the annotator together")


def filter_pairs(place: Path, config: FilterConfig, seed: int, out: Path, progress: Progress | None = None) -> Manifest:
    """Write the kept samples unchanged.

    Raises:
        InputError: samples that are not about pairs, an annotator that cannot be opened, or no row is left.
    """
    rows = read_pairs(place)
    annotator = config.annotator.open()
    stage = Stage.open(out, "match filter", config, {"samples": place, **config.annotator.inputs}, seed)
    if stage.done:
        return stage.manifest
    prompts = [(sample, _prompt(pair, config.by)) for sample, pair in rows]
    answers = list(annotate(annotator, prompts, config.wave, seed, progress))
    why = [reason(pair, reply, config.by) for (_, pair), reply in zip(rows, answers, strict=True)]
    kept = [sample for (sample, _), refused in zip(rows, why, strict=True) if not refused]
    dropped = Counter(refused for refused in why if refused)
    if not kept:
        raise InputError(f"{place}: none of {len(rows)} pairs is kept ({dict(dropped)}); check the model's replies")
    write_samples(out, kept)
    matches = sum(pair.match for (_, pair), refused in zip(rows, why, strict=True) if not refused)
    return stage.finish(counts={"samples": len(kept), "matches": matches}, dropped=dropped)


def reason(pair: EntityPair, reply: str | None, by: Literal["label", "interesting"]) -> str:
    """Why a pair is dropped; empty if it is kept."""
    if reply is None:
        return NO_REPLY
    if by == "interesting":
        found = _YES_NO.match(reply)
        return UNPARSED if found is None else "" if found[1].lower() == "yes" else DULL
    parsed = read_match(reply)
    return UNPARSED if parsed is None else "" if parsed is pair.match else OTHER_LABEL


def _prompt(pair: EntityPair, by: Literal["label", "interesting"]) -> str:
    return pair_prompt(pair, INTERESTING) if by == "interesting" else match_prompt(LABEL_PROMPT, pair.noun, *pair.texts)
