"""Pairs of a text and its rewrite by a writer: the builders `altered`, `corrupted` and `corrected`.

`altered` (HALVA) and `corrupted` (POVID) put mistakes into the reference; `corrected` (RLHF-V) removes them from a
sampled answer.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, always, batched, make_pair, require_reference, sample_rng
from sightline.builders.sampled_answers import AnswersConfig, Unanswered, answer_requests, sample_answers
from sightline.config import Config
from sightline.data.texts import changed_spans
from sightline.models.context import RunContext
from sightline.models.requests import Generation, judge_input, make_prefix
from sightline.records import Sample
from sightline.writers.endpoint import WriterConfig
from sightline.writers.writer import Task, Writer, WriterTask, Written

NOT_WRITTEN, UNCHANGED = "the writer gave no text", "the writer changed nothing"
REMEDY = "look at the writer's replies; a stronger model follows its prompt better"
_PURPOSE = 2000


class RewritingConfig(Config):
    """The writer, and how many samples it gets per call."""

    writer: WriterConfig = Field(description="the writer that rewrites the references")
    wave: int = Field(default=32, gt=0, description="samples per writer call")


class Rewrite(NamedTuple):
    """A writer's result, its source text, and whether the rewrite is the better of the two."""

    written: Written
    source: str
    improved: bool = False


def rewrite_references(
    samples: Iterable[Sample], context: RunContext, config: RewritingConfig, name: str, task: Task, count: int = 1
) -> Iterator[BuildResult]:
    """Yield up to `count` pairs per sample, chosen = its reference, rejected = the reference rewritten by the task."""
    writer = config.writer.open(context)
    for wave in batched(samples, config.wave):
        drafts = [
            WriterTask(
                task,
                judge_input(sample, context.folder, require_reference(sample)),
                draft_seed(context, sample, number),
            )
            for sample in wave
            for number in range(count)
        ]
        written = writer.write(drafts)
        for place, sample in enumerate(wave):
            rewrites = [Rewrite(one, require_reference(sample)) for one in written[place * count : (place + 1) * count]]
            yield make_result(sample, name, rewrites, writer, {})


def draft_seed(context: RunContext, sample: Sample, number: int = 0) -> int:
    """Return the seed of a sample's draft."""
    return int(sample_rng(context.seed, sample, _PURPOSE + number).integers(2**63))


def make_result(
    sample: Sample, name: str, rewrites: Sequence[Rewrite], writer: Writer, tallies: dict[str, float]
) -> BuildResult:
    """Make pairs of a sample's rewrites, each text once, with the spans that changed."""
    tokens = sum(one.written.tokens for one in rewrites)
    tallies = {**tallies, "written_texts": len(rewrites), "written_tokens": tokens}
    texts = {text: one for one in rewrites if (text := (one.written.text or "").strip()) not in ("", one.source)}
    if not texts:
        reason = NOT_WRITTEN if all(one.written.text is None for one in rewrites) else UNCHANGED
        return BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies)
    pairs = []
    for number, (text, one) in enumerate(texts.items()):
        chosen, rejected = (text, one.source) if one.improved else (one.source, text)
        spans = changed_spans(chosen, rejected)
        pair = make_pair(
            sample,
            name,
            chosen,
            rejected,
            suffix=f"-{number:03d}" if len(rewrites) > 1 else "",
            chosen_spans=spans[0],
            rejected_spans=spans[1],
            provenance={"writer": writer.identity, "tokens": tokens},
        )
        pairs.append(pair)
    return BuildResult(sample_id=sample.id, pairs=tuple(pairs), tallies=tallies)


class AlteredConfig(RewritingConfig):
    """Settings of `altered`: one phrase of the reference is replaced per text."""

    twins: int = Field(default=1, ge=1, description="altered texts per reference; duplicates are dropped")


def build_altered(samples: Iterable[Sample], context: RunContext, config: AlteredConfig) -> Iterator[BuildResult]:
    """Yield up to `twins` pairs per sample, chosen = its reference."""
    return rewrite_references(samples, context, config, ALTERED.name, "alter", config.twins)


ALTERED = Builder(
    name="altered",
    summary="Let a writer replace one phrase of the reference at a time (HALVA, arXiv 2405.18654).",
    config=AlteredConfig,
    build=build_altered,
    needs_model=False,
    needs_reference=always,
    remedy=REMEDY,
)


class CorruptedConfig(RewritingConfig):
    """Settings of `corrupted`: one rewrite of the whole reference. The papers use GPT-4V, or few-shot GPT-4."""


def build_corrupted(samples: Iterable[Sample], context: RunContext, config: CorruptedConfig) -> Iterator[BuildResult]:
    """Yield one pair per sample, chosen = its reference."""
    return rewrite_references(samples, context, config, CORRUPTED.name, "corrupt")


CORRUPTED = Builder(
    name="corrupted",
    summary="Let a writer put plausible mistakes into the reference (POVID, arXiv 2402.11411).",
    config=CorruptedConfig,
    build=build_corrupted,
    needs_model=False,
    needs_reference=always,
    remedy=REMEDY,
)


CUT_OFF, EMPTY = "max_new_tokens cut the answer off", "empty answer"


class CorrectedConfig(AnswersConfig):
    """Settings of `corrected`: one sampled answer per prompt; answers without mistakes make no pair."""

    writer: WriterConfig = Field(description="the writer that corrects the sampled answers")


def build_corrected(samples: Iterable[Sample], context: RunContext, config: CorrectedConfig) -> Iterator[BuildResult]:
    """Yield at most one pair per sample, in order."""
    writer = config.writer.open(context)
    for wave in batched(samples, config.wave):
        sampled = sample_answers(
            context, [answer_requests(s, make_prefix(s, context.folder), context.seed, 1) for s in wave], config
        )
        reasons = [_reason(answers, config) for answers in sampled]
        drafts = [
            WriterTask(
                "correct", judge_input(sample, context.folder, answers[0].text.strip()), draft_seed(context, sample)
            )
            for sample, answers, reason in zip(wave, sampled, reasons, strict=True)
            if not isinstance(answers, Unanswered) and not reason
        ]
        written = iter(writer.write(drafts))
        for sample, answers, reason in zip(wave, sampled, reasons, strict=True):
            if isinstance(answers, Unanswered):
                yield answers.result(sample)
                continue
            tallies = {"generated_tokens": float(answers[0].tokens)}
            if reason:
                yield BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies)
            else:
                improved = Rewrite(next(written), answers[0].text.strip(), improved=True)
                yield make_result(sample, CORRECTED.name, [improved], writer, tallies)


def _reason(answers: list[Generation] | Unanswered, config: CorrectedConfig) -> str:
    """Return why an answer is not worth correcting, or an empty string."""
    if isinstance(answers, Unanswered):
        return answers.reason
    if not answers[0].text.strip():
        return EMPTY
    return "" if answers[0].finished or config.unfinished else CUT_OFF


CORRECTED = Builder(
    name="corrected",
    summary="Let a writer correct the policy's answer, keeping the changed spans (RLHF-V, arXiv 2312.00849).",
    config=CorrectedConfig,
    build=build_corrected,
    remedy=REMEDY,
)
