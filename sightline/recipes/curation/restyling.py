"""Answers rewritten in the model's own style, each reviewed before it replaces the original (Align2LLaVA).

Writers do both (`writers`); the paper's writer is the language model inside the VLM, the writer `policy`. The prompts
are our own, since the paper's were not available.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sightline.builders.builder import batched
from sightline.builders.rewriting import draft_seed
from sightline.models.context import RunContext
from sightline.recipes.curation.config import RewriteConfig
from sightline.recipes.curation.conversations import answer_input, replace_answers, split_turns
from sightline.records import Sample
from sightline.writers.writer import WriterTask

_YES = re.compile(r"\W*yes\b", re.IGNORECASE)


@dataclass
class RestyleResult:
    """The samples, and the counts of their answers' outcomes."""

    samples: list[Sample]
    rewritten: int = 0
    refused: int = 0
    not_written: int = 0


def restyle(samples: Sequence[Sample], config: RewriteConfig, context: RunContext, wave: int) -> RestyleResult:
    """Rewrite every answer; where the review rejects it, the original remains."""
    writer = config.writer.open(context)
    reviewer = writer if config.reviewer is None else config.reviewer.open(context)
    result = RestyleResult([])
    for part in batched(samples, wave):
        drafts = [draft for sample in part for draft in _drafts(sample, context)]
        written = [(one.text or "").strip() for one in writer.write(drafts)]
        reviews = [
            WriterTask("review", draft.about, draft.seed, beside=text)
            for draft, text in zip(drafts, written, strict=True)
            if text
        ]
        replies = iter(reviewer.write(reviews))
        chosen = []
        for draft, text in zip(drafts, written, strict=True):
            passed = bool(text) and _YES.match(next(replies).text or "") is not None
            result.rewritten += passed
            result.refused += bool(text) and not passed
            result.not_written += not text
            chosen.append(text if passed else draft.about.answer)
        answers = iter(chosen)
        result.samples += [replace_answers(sample, [next(answers) for _ in split_turns(sample)]) for sample in part]
    return result


def _drafts(sample: Sample, context: RunContext) -> list[WriterTask]:
    folder: Path = context.folder
    return [
        WriterTask("restyle", answer_input(sample, folder, turn, turn.answer), draft_seed(context, sample, number))
        for number, turn in enumerate(split_turns(sample))
    ]
