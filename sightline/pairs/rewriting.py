"""What `corrupted`, `altered` and `corrected` share: pairs of a text and what a writer made of it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pydantic import Field

from sightline.config import Config
from sightline.data.differences import changed_spans
from sightline.pairs.builder import Made, Tools, pair_of, reference_of, rng_of, waves
from sightline.pairs.judges.base import judged
from sightline.pairs.writers.base import Draft, Task, Writer, Written
from sightline.pairs.writers.table import WriterConfig
from sightline.records import Sample

NOT_WRITTEN, UNCHANGED = "the writer gave no text", "the writer changed nothing"
REMEDY = "look at the writer's replies; a stronger model follows its prompt better"
_PURPOSE = 2000


class RewritingConfig(Config):
    """Who rewrites, and how many samples he is given together."""

    writer: WriterConfig
    wave: int = Field(default=32, gt=0, description="samples given to the writer together")


class Rewritten(NamedTuple):
    """What was written from a text, the text, and whether the new one is the better."""

    written: Written
    source: str
    mended: bool = False


def spoiled(
    samples: Iterable[Sample], tools: Tools, config: RewritingConfig, name: str, task: Task, count: int = 1
) -> Iterator[Made]:
    """Up to `count` pairs a sample, chosen = its reference, rejected = the reference after the task."""
    writer = config.writer.open(tools)
    for wave in waves(samples, config.wave):
        drafts = [
            Draft(task, judged(sample, tools.folder, reference_of(sample)), draft_seed(tools, sample, number))
            for sample in wave
            for number in range(count)
        ]
        written = writer.write(drafts)
        for place, sample in enumerate(wave):
            theirs = [Rewritten(one, reference_of(sample)) for one in written[place * count : (place + 1) * count]]
            yield made_of(sample, name, theirs, writer, {})


def draft_seed(tools: Tools, sample: Sample, number: int = 0) -> int:
    """The seed of a sample's draft."""
    return int(rng_of(tools.seed, sample, _PURPOSE + number).integers(2**63))


def made_of(
    sample: Sample, name: str, rewritten: Sequence[Rewritten], writer: Writer, tallies: dict[str, float]
) -> Made:
    """The pairs of a sample's rewritten texts, each text once, with the spans that changed."""
    tokens = sum(one.written.tokens for one in rewritten)
    tallies = {**tallies, "written_texts": len(rewritten), "written_tokens": tokens}
    texts = {text: one for one in rewritten if (text := (one.written.text or "").strip()) not in ("", one.source)}
    if not texts:
        reason = NOT_WRITTEN if all(one.written.text is None for one in rewritten) else UNCHANGED
        return Made(sample_id=sample.id, dropped=reason, tallies=tallies)
    pairs = []
    for number, (text, one) in enumerate(texts.items()):
        chosen, rejected = (text, one.source) if one.mended else (one.source, text)
        spans = changed_spans(chosen, rejected)
        pair = pair_of(
            sample,
            name,
            chosen,
            rejected,
            suffix=f"-{number:03d}" if len(rewritten) > 1 else "",
            chosen_spans=spans[0],
            rejected_spans=spans[1],
            provenance={"writer": writer.identity, "tokens": tokens},
        )
        pairs.append(pair)
    return Made(sample_id=sample.id, pairs=tuple(pairs), tallies=tallies)
