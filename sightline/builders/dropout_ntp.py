"""DropoutNTP: half an answer, completed without the image, against the whole answer (MPO, arXiv 2411.10442).

It needs no reference and no judge: the model's blind completion is the rejected answer. Choices that the paper leaves
open are in `DropoutNTPConfig`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field

from sightline.builders.builder import Builder, BuildResult, batched, make_pair, require_reference
from sightline.builders.sampled_answers import (
    AnswersConfig,
    Unanswered,
    answer_requests,
    count_tokens,
    rejected_seed,
    sample_answers,
)
from sightline.data.texts import count_words, cut_before_word
from sightline.models.context import RunContext
from sightline.models.requests import GenerateRequest, Generation, make_prefix, without_pictures
from sightline.models.sampler import image_token_count
from sightline.records import Sample

NO_PICTURE = "no picture to leave out"
NO_PROMPT = "nothing is asked without the picture"
NO_ANSWER = "the model says nothing"
CUT_OFF = "max_new_tokens cut the chosen answer off"


class DropoutNTPConfig(AnswersConfig):
    """Settings of DropoutNTP. The paper cuts a sampled answer in half; a quarter and three quarters did worse."""

    chosen: Literal["sampled", "reference"] = Field(default="sampled", description="the answer that is cut, and chosen")
    keep: float = Field(default=0.5, ge=0, lt=1, description="share of the answer's words to keep, rounded down")
    without: Literal["removed", "hidden"] = Field(
        default="removed", description="the image is not in the prompt, or all its tokens are masked in place"
    )


def build_dropout_ntp(
    samples: Iterable[Sample], context: RunContext, config: DropoutNTPConfig
) -> Iterator[BuildResult]:
    """Yield one result per sample, in order; a row depends on (sample, seed) alone."""
    for wave in batched(samples, config.wave):
        blind = [_blind_request(sample, context, config) for sample in wave]
        wholes = _whole_answers(wave, blind, context, config)
        requests = [_completion_requests(*both, config) for both in zip(blind, wholes, strict=True)]
        for sample, whole, rest in zip(wave, wholes, sample_answers(context, requests, config), strict=True):
            yield _make_result(sample, whole, rest, config)


def keep_beginning(answer: str, keep: float) -> str:
    """Return the given share of an answer's words, rounded down, so that at least one is left to write."""
    return cut_before_word(answer, int(count_words(answer) * keep)).rstrip()


def _blind_request(sample: Sample, context: RunContext, config: DropoutNTPConfig) -> GenerateRequest | None:
    """Build the prompt without its image, for the model to complete; None if there is no image or no prompt left."""
    prefix, seed = make_prefix(sample, context.folder), rejected_seed(sample, context.seed)
    if not sample.images:
        return None
    if config.without == "hidden":
        return GenerateRequest(prefix, hidden=frozenset(range(image_token_count(context.vlm, prefix))), seed=seed)
    left = without_pictures(prefix)
    return GenerateRequest(left, seed=seed) if left.prompt.strip() else None


def _whole_answers(
    wave: Sequence[Sample], blind: Sequence[GenerateRequest | None], context: RunContext, config: DropoutNTPConfig
) -> list[list[Generation] | Unanswered]:
    """Return the answer to cut for each sample: empty if there is no blind prompt."""
    if config.chosen == "reference":
        return [
            [Generation(require_reference(s), 0, finished=True)] if b else [] for s, b in zip(wave, blind, strict=True)
        ]
    requests = [
        answer_requests(sample, make_prefix(sample, context.folder), context.seed, 1) if request else []
        for sample, request in zip(wave, blind, strict=True)
    ]
    return sample_answers(context, requests, config)


def _completion_requests(
    blind: GenerateRequest | None, whole: Sequence[Generation] | Unanswered, config: DropoutNTPConfig
) -> list[GenerateRequest]:
    if blind is None or isinstance(whole, Unanswered) or not whole or not _is_usable(whole[0], config):
        return []
    return [replace(blind, prefill=keep_beginning(whole[0].text.strip(), config.keep))]


def _is_usable(answer: Generation, config: DropoutNTPConfig) -> bool:
    return bool(answer.text.strip()) and (answer.finished or config.unfinished)


def _make_result(
    sample: Sample,
    whole: Sequence[Generation] | Unanswered,
    rest: Sequence[Generation] | Unanswered,
    config: DropoutNTPConfig,
) -> BuildResult:
    tokens = count_tokens(whole) + count_tokens(rest)
    for answers in (whole, rest):
        if isinstance(answers, Unanswered):
            return answers.result(sample, {"generated_tokens": tokens})
    if isinstance(whole, Unanswered) or isinstance(rest, Unanswered) or not whole or not rest:
        reason = _reason(sample, whole)
        return BuildResult(sample_id=sample.id, dropped=reason, tallies={"generated_tokens": tokens})
    chosen = whole[0].text.strip()
    kept = keep_beginning(chosen, config.keep)
    provenance = {
        "chosen": config.chosen,
        "kept_words": count_words(kept),
        "chosen_words": count_words(chosen),
        "without": config.without,
        "chosen_finished": whole[0].finished,
        "rejected_finished": rest[0].finished,
        "tokens": tokens,
    }
    pair = make_pair(sample, DROPOUT_NTP.name, chosen, kept + rest[0].text, provenance=provenance)
    return BuildResult(sample_id=sample.id, pairs=(pair,), tallies={"generated_tokens": tokens})


def _reason(sample: Sample, whole: Sequence[Generation] | Unanswered) -> str:
    """Return the reason why there is nothing to complete."""
    if not sample.images:
        return NO_PICTURE
    if isinstance(whole, Unanswered) or not whole:
        return NO_PROMPT
    return CUT_OFF if whole[0].text.strip() else NO_ANSWER


DROPOUT_NTP = Builder(
    name="dropout-ntp",
    summary="Cut an answer in half and complete it without the image (DropoutNTP of MPO, arXiv 2411.10442).",
    config=DropoutNTPConfig,
    build=build_dropout_ntp,
    needs_reference=lambda config: config.chosen == "reference",
    remedy="try a higher temperature, a smaller keep, or more max_new_tokens",
)
