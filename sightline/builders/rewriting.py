"""What `corrupted`, `altered` and `corrected` share: pairs of a text and what a writer made of it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, always, batched, make_pair, require_reference, sample_rng
from sightline.builders.sampled_answers import AnswersConfig, k_requests, say
from sightline.config import Config
from sightline.data.texts import changed_spans
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.requests import Generation, judge_input, prefix_of
from sightline.records import Sample
from sightline.writers.endpoint import WriterConfig
from sightline.writers.writer import Task, Writer, WriterTask, Written

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
    samples: Iterable[Sample], tools: RunContext, config: RewritingConfig, name: str, task: Task, count: int = 1
) -> Iterator[BuildResult]:
    """Up to `count` pairs a sample, chosen = its reference, rejected = the reference after the task."""
    writer = config.writer.open(tools)
    for wave in batched(samples, config.wave):
        drafts = [
            WriterTask(
                task, judge_input(sample, tools.folder, require_reference(sample)), draft_seed(tools, sample, number)
            )
            for sample in wave
            for number in range(count)
        ]
        written = writer.write(drafts)
        for place, sample in enumerate(wave):
            theirs = [Rewritten(one, require_reference(sample)) for one in written[place * count : (place + 1) * count]]
            yield made_of(sample, name, theirs, writer, {})


def draft_seed(tools: RunContext, sample: Sample, number: int = 0) -> int:
    """The seed of a sample's draft."""
    return int(sample_rng(tools.seed, sample, _PURPOSE + number).integers(2**63))


def made_of(
    sample: Sample, name: str, rewritten: Sequence[Rewritten], writer: Writer, tallies: dict[str, float]
) -> BuildResult:
    """The pairs of a sample's rewritten texts, each text once, with the spans that changed."""
    tokens = sum(one.written.tokens for one in rewritten)
    tallies = {**tallies, "written_texts": len(rewritten), "written_tokens": tokens}
    texts = {text: one for one in rewritten if (text := (one.written.text or "").strip()) not in ("", one.source)}
    if not texts:
        reason = NOT_WRITTEN if all(one.written.text is None for one in rewritten) else UNCHANGED
        return BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies)
    pairs = []
    for number, (text, one) in enumerate(texts.items()):
        chosen, rejected = (text, one.source) if one.mended else (one.source, text)
        spans = changed_spans(chosen, rejected)
        pair = make_pair(
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
    return BuildResult(sample_id=sample.id, pairs=tuple(pairs), tallies=tallies)


class AlteredConfig(RewritingConfig):
    """One phrase of the reference is replaced at a time."""

    twins: int = Field(default=1, ge=1, description="altered texts of each reference; one that repeats is left out")


def build_altered(samples: Iterable[Sample], tools: RunContext, config: AlteredConfig) -> Iterator[BuildResult]:
    """Up to `twins` pairs a sample, chosen = its reference."""
    return spoiled(samples, tools, config, ALTERED.name, "alter", config.twins)


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
    """The whole reference is rewritten once. The papers' writer is GPT-4V, or GPT-4 with two worked examples."""


def build_corrupted(samples: Iterable[Sample], tools: RunContext, config: CorruptedConfig) -> Iterator[BuildResult]:
    """One pair a sample, chosen = its reference."""
    return spoiled(samples, tools, config, CORRUPTED.name, "corrupt")


CORRUPTED = Builder(
    name="corrupted",
    summary="Let a writer put believable mistakes into the reference (POVID, arXiv 2402.11411).",
    config=CorruptedConfig,
    build=build_corrupted,
    needs_model=False,
    needs_reference=always,
    remedy=REMEDY,
)


CUT_OFF, EMPTY = "max_new_tokens cut the answer off", "empty answer"


class CorrectedConfig(AnswersConfig):
    """One sampled answer a prompt; right ones make no pair."""

    writer: WriterConfig


def build_corrected(samples: Iterable[Sample], tools: RunContext, config: CorrectedConfig) -> Iterator[BuildResult]:
    """At most one pair a sample, in order."""
    writer = config.writer.open(tools)
    for wave in batched(samples, config.wave):
        said = say(tools, [k_requests(s, prefix_of(s, tools.folder), tools.seed, 1) for s in wave], config)
        reasons = [_reason(answers, config) for answers in said]
        drafts = [
            WriterTask("correct", judge_input(sample, tools.folder, answers[0].text.strip()), draft_seed(tools, sample))
            for sample, answers, reason in zip(wave, said, reasons, strict=True)
            if answers and not reason
        ]
        written = iter(writer.write(drafts))
        for sample, answers, reason in zip(wave, said, reasons, strict=True):
            tallies = {"generated_tokens": float(answers[0].tokens)} if answers else {}
            if reason or not answers:
                yield BuildResult(sample_id=sample.id, dropped=reason, tallies=tallies)
            else:
                mended = Rewritten(next(written), answers[0].text.strip(), mended=True)
                yield made_of(sample, CORRECTED.name, [mended], writer, tallies)


def _reason(answers: list[Generation] | None, config: CorrectedConfig) -> str:
    """Why an answer is not worth correcting, or nothing."""
    if answers is None:
        return TOO_LONG
    if not answers[0].text.strip():
        return EMPTY
    return "" if answers[0].finished or config.unfinished else CUT_OFF


CORRECTED = Builder(
    name="corrected",
    summary="Let a writer mend the policy's answer, changed spans kept (RLHF-V, arXiv 2312.00849).",
    config=CorrectedConfig,
    build=build_corrected,
    remedy=REMEDY,
)
