"""The policy's answer as rejected, the same corrected as chosen: RLHF-V (arXiv 2312.00849), changed spans kept.

In the paper people correct; here a writer does, who should see the picture.
"""

from collections.abc import Iterable, Iterator

from sightline.models.prompts import Generation, prefix_of
from sightline.pairs.answers import AnswersConfig, k_requests, say
from sightline.pairs.builder import TOO_LONG, Builder, Made, Tools, waves
from sightline.pairs.judges.base import judged
from sightline.pairs.rewriting import REMEDY, Rewritten, draft_seed, made_of
from sightline.pairs.writers.base import Draft
from sightline.pairs.writers.table import WriterConfig
from sightline.records import Sample

CUT_OFF, EMPTY = "max_new_tokens cut the answer off", "empty answer"


class CorrectedConfig(AnswersConfig):
    """One sampled answer a prompt; right ones make no pair."""

    writer: WriterConfig


def build_corrected(samples: Iterable[Sample], tools: Tools, config: CorrectedConfig) -> Iterator[Made]:
    """At most one pair a sample, in order."""
    writer = config.writer.open(tools)
    for wave in waves(samples, config.wave):
        said = say(tools, [k_requests(s, prefix_of(s, tools.folder), tools.seed, 1) for s in wave], config)
        reasons = [_reason(answers, config) for answers in said]
        drafts = [
            Draft("correct", judged(sample, tools.folder, answers[0].text.strip()), draft_seed(tools, sample))
            for sample, answers, reason in zip(wave, said, reasons, strict=True)
            if answers and not reason
        ]
        written = iter(writer.write(drafts))
        for sample, answers, reason in zip(wave, said, reasons, strict=True):
            tallies = {"generated_tokens": float(answers[0].tokens)} if answers else {}
            if reason or not answers:
                yield Made(sample_id=sample.id, dropped=reason, tallies=tallies)
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
