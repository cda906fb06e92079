"""Bias-Driven Hallucination Sampling (BDHS): arXiv 2407.02477, sec. 3.4, Algorithm 1, by attention mask and by noise.

Most image tokens are hidden from attention, every sentence of the reference is cut at a random word, and the policy
completes it from its language prior; the completed text is the rejected answer. No annotator is needed. Choices that
the paper leaves open are in `BDHSConfig` or beside the line; `build` writes the dataset.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from sightline.builders.builder import (
    Builder,
    BuildResult,
    SampledConfig,
    always,
    make_pair,
    require_reference,
    sample_rng,
)
from sightline.builders.image_corruptions import corrupt_image
from sightline.builders.similarity import make_similarity
from sightline.data.texts import count_words, cut_before_word, split_sentences, starts_with_yes_no, swap_yes_no
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.encoding import fits
from sightline.models.requests import GenerateRequest, Generation, make_prefix
from sightline.models.sampler import generate, image_token_count
from sightline.records import Sample


class BDHSConfig(SampledConfig):
    """Settings of BDHS. The paper's: rho 0.99 (of about 2,000 image tokens), 5 tries, threshold 0.97 on embeddings.

    With `noise_steps` the image is noised instead of, or in addition to, being hidden (eq. 8 and 9; the paper's variant
    has rho 0 and 500 steps). With `guided=false` every try writes the whole answer (table 15, "mask only").
    """

    rho: float = Field(ge=0, le=1, description="probability that an image token is hidden; raise it with their number")
    noise_steps: int = Field(default=0, ge=0, le=1000, description="N: diffusion steps of noise on the image")
    guided: bool = Field(default=True, description="continue from every sentence of the reference")
    tries: int = Field(default=5, ge=1, description="N_BDHS; the last of several is unguided and always accepted")
    threshold: float = Field(
        default=0.97, gt=0, le=1, description="eps_s: answers at least this similar are tried again"
    )
    similarity: str = Field(
        default="words",
        description="how answers are compared: words (cosine of word counts), or sentence-transformers:DIRECTORY (of "
        "embeddings, as in the paper)",
    )
    temperature: float = Field(default=1.0, gt=0, description="the paper gives none, only 'sampled'")
    max_new_tokens: int = Field(default=256, gt=0, description="limit of one continued sentence or unguided answer")


@dataclass
class _Attempt:
    """One sample on its `number`-th try (from 1), with the tokens spent so far."""

    sample: Sample
    number: int = 1
    tokens: int = 0


@dataclass(frozen=True)
class _BDHSDraft:
    """One sentence of a guided answer, or a whole unguided one: the kept beginning, with the white space before it, and
    the request that continues it.
    """

    kept: str
    request: GenerateRequest


def build_bdhs(samples: Iterable[Sample], context: RunContext, config: BDHSConfig) -> Iterator[BuildResult]:
    """Yield one pair per sample, chosen = its reference, in order of completion.

    A row depends on (sample, seed) alone and not on its neighbors: batches, waves and a resumed run give the same
    pairs. Pairs whose rejected answer is empty or equals the reference are also yielded; the stage drops and counts
    them.
    """
    similarity = make_similarity(config.similarity)
    source, waiting = iter(samples), deque[_Attempt]()
    while True:
        while len(waiting) < config.wave and (sample := next(source, None)) is not None:
            prefix = make_prefix(sample, context.folder)
            if fits(context.vlm, prefix, require_reference(sample), config.max_new_tokens):
                waiting.append(_Attempt(sample))
            else:
                yield BuildResult(sample_id=sample.id, dropped=TOO_LONG)
        if not waiting:
            return
        attempts, waiting = list(waiting), deque()
        answers = _rejected_answers(attempts, context, config)
        alike = similarity(answers, [require_reference(a.sample) for a in attempts])
        for attempt, answer, phi in zip(attempts, answers, alike, strict=True):
            if phi < config.threshold or attempt.number == config.tries:
                yield _make_result(attempt, answer, phi, config)
            else:
                waiting.append(_Attempt(attempt.sample, attempt.number + 1, attempt.tokens))


def draw_hidden_tokens(rng: np.random.Generator, count: int, rho: float) -> frozenset[int]:
    """Draw the image tokens to hide: token j is visible iff rho_j ~ U(0, 1) is at least rho (Algorithm 1)."""
    return frozenset(int(j) for j in np.flatnonzero(rng.random(count) < rho))


def cut_sentence(rng: np.random.Generator, sentence: str) -> str:
    """Return the kept beginning of a sentence: yes and no swapped with probability one half, then a random cut.

    Cuts lie at word borders, uniformly over all that leave at least one word to continue. A swapped word is never cut
    off, or the swap would change nothing. This rule and the word borders are our choice; the paper gives neither.
    """
    swapped = starts_with_yes_no(sentence) and rng.random() >= 0.5
    if not swapped:
        return cut_before_word(sentence, int(rng.integers(count_words(sentence))))
    changed = swap_yes_no(sentence)
    kept = cut_before_word(changed, int(rng.integers(1, max(2, count_words(changed)))))
    return kept.rstrip(".,;:!") if count_words(kept) == 1 else kept


def _rejected_answers(attempts: Sequence[_Attempt], context: RunContext, config: BDHSConfig) -> list[str]:
    """Return one rejected answer per attempt; one `generate` call per stop rule covers all sentences."""
    drafts = [_drafts(attempt, context, config) for attempt in attempts]
    guided = [_is_guided(a, config) for a in attempts]
    texts: dict[GenerateRequest, Generation] = {}
    for stop, is_guided in (((".",), True), ((), False)):
        requests = [d.request for ds, g in zip(drafts, guided, strict=True) if g == is_guided for d in ds]
        if requests:
            generated = generate(
                context.vlm, requests, config.sampling(stop), batch_size=config.batch_size, autocast=config.autocast
            )
            texts.update(zip(requests, generated, strict=True))
    answers = []
    for attempt, sentences in zip(attempts, drafts, strict=True):
        attempt.tokens += sum(texts[d.request].tokens for d in sentences)
        answers.append("".join(_join(d.kept, texts[d.request].text) for d in sentences).strip())
    return answers


def _is_guided(attempt: _Attempt, config: BDHSConfig) -> bool:
    """Whether a try is guided; the last of several writes the whole answer without the reference (Algorithm 1)."""
    return config.guided and (config.tries == 1 or attempt.number < config.tries)


def _drafts(attempt: _Attempt, context: RunContext, config: BDHSConfig) -> list[_BDHSDraft]:
    """Build the requests of one attempt; mask, noise and cuts are drawn anew on every try."""
    sample = attempt.sample
    rng = sample_rng(context.seed, sample, attempt.number)
    prefix = make_prefix(sample, context.folder)
    if config.noise_steps:
        name = f"noise-{config.noise_steps}"
        prefix = replace(prefix, images=tuple(corrupt_image(image, name, context, rng) for image in prefix.images))
    hidden = draw_hidden_tokens(rng, image_token_count(context.vlm, prefix), config.rho)
    if not _is_guided(attempt, config):
        return [_BDHSDraft("", GenerateRequest(prefix, "", hidden, int(rng.integers(2**63))))]
    sentences = split_sentences(require_reference(sample))
    drafts = []
    for k, sentence in enumerate(sentences):
        kept = cut_sentence(rng, sentence)
        # Sentence k follows the true earlier text, never the generated one: diverge and rejoin.
        prefill = "".join([*sentences[:k], kept])
        drafts.append(_BDHSDraft(kept, GenerateRequest(prefix, prefill, hidden, int(rng.integers(2**63)))))
    return drafts


def _join(kept: str, continuation: str) -> str:
    """Join kept words and continuation, which brings its own space before a new word; empty if both are blank."""
    return (kept + continuation).rstrip()


def _make_result(attempt: _Attempt, answer: str, phi: float, config: BDHSConfig) -> BuildResult:
    sample, similar = attempt.sample, phi >= config.threshold
    provenance = {
        "tries": attempt.number,
        "similarity": round(phi, 6),
        "similar": similar,
        "guided": _is_guided(attempt, config),
        "tokens": attempt.tokens,
    }
    # Answers similar after try i are tried again, or, after the last try, accepted.
    still = {f"share_similar_after_try_{number}": float(attempt.number > number) for number in range(1, config.tries)}
    return BuildResult(
        sample_id=sample.id,
        pairs=(make_pair(sample, BDHS.name, require_reference(sample), answer, provenance=provenance),),
        tallies={**still, f"share_similar_after_try_{config.tries}": similar, "generated_tokens": attempt.tokens},
    )


BDHS = Builder(
    name="bdhs",
    summary="Hide most of the image and let the model continue the reference (BDHS, arXiv 2407.02477).",
    config=BDHSConfig,
    build=build_bdhs,
    needs_reference=always,
    remedy="try a higher rho or temperature, or fewer max_new_tokens",
)
