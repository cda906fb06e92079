"""Answers told again in the model's own words, each reviewed before it takes the original's place (Align2LLaVA).

Writers do both (`writers`); the paper's is the language model inside the VLM, which is the writer `policy`. The
prompts are our own: the paper's were not at hand.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.builders.builder import batched
from sightline.builders.rewriting import draft_seed
from sightline.models.context import RunContext
from sightline.recipes.curation.config import RewriteConfig
from sightline.recipes.curation.conversations import answer_judged, turns_of, with_answers
from sightline.records import Sample
from sightline.writers.writer import WriterTask

_YES = re.compile(r"\W*yes\b", re.IGNORECASE)


@dataclass
class Restyled:
    """The samples, and what became of their answers."""

    samples: list[Sample]
    rewritten: int = 0
    refused: int = 0
    not_written: int = 0


def restyle(samples: Sequence[Sample], config: RewriteConfig, tools: RunContext, wave: int) -> Restyled:
    """Every answer rewritten where the review says yes, and as it was elsewhere."""
    writer = config.writer.open(tools)
    reviewer = writer if config.reviewer is None else config.reviewer.open(tools)
    made = Restyled([])
    for part in batched(samples, wave):
        drafts = [draft for sample in part for draft in _drafts(sample, tools)]
        written = [(one.text or "").strip() for one in writer.write(drafts)]
        reviews = [
            WriterTask("review", draft.about, draft.seed, beside=text)
            for draft, text in zip(drafts, written, strict=True)
            if text
        ]
        said = iter(reviewer.write(reviews))
        chosen = []
        for draft, text in zip(drafts, written, strict=True):
            passed = bool(text) and _YES.match(next(said).text or "") is not None
            made.rewritten += passed
            made.refused += bool(text) and not passed
            made.not_written += not text
            chosen.append(text if passed else draft.about.answer)
        answers = iter(chosen)
        made.samples += [with_answers(sample, [next(answers) for _ in turns_of(sample)]) for sample in part]
    return made


def _drafts(sample: Sample, tools: RunContext) -> list[WriterTask]:
    folder: Path = tools.folder
    return [
        WriterTask("restyle", answer_judged(sample, folder, asked, asked.answer), draft_seed(tools, sample, number))
        for number, asked in enumerate(turns_of(sample))
    ]
