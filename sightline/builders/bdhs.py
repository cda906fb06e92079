"""Bias-Driven Hallucination Sampling (BDHS): arXiv 2407.02477, sec. 3.4, Algorithm 1, by attention and by noise.

Most image tokens are hidden from attention, the reference answer is cut somewhere in every sentence, and the policy
continues from its prior; what it makes up is the rejected answer. No annotator is asked. Where the paper is silent, the
choice stands in `BDHSConfig` or beside the line; writing the dataset is `build`.
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
from sightline.builders.image_corruptions import weakened
from sightline.builders.similarity import make_similarity
from sightline.data.sentences import count_words, cut_before_word, split_sentences, starts_with_yes_no, swap_yes_no
from sightline.models.context import TOO_LONG, RunContext
from sightline.models.encoding import fits
from sightline.models.requests import GenerateRequest, Generation, prefix_of
from sightline.models.sampler import generate, image_token_count
from sightline.records import Sample


class BDHSConfig(SampledConfig):
    """Settings of BDHS. The paper's: rho 0.99 (of about 2,000 image tokens), 5 tries, threshold 0.97 on embeddings.

    With `noise_steps` the picture is noised instead of, or besides, being hidden (eq. 8 and 9; the paper's variant has
    rho 0 and 500 steps). Without `guided` every try writes the whole answer (table 15, "mask only").
    """

    rho: float = Field(ge=0, le=1, description="probability that an image token is hidden; suit it to their number")
    noise_steps: int = Field(default=0, ge=0, le=1000, description="N: diffusion steps of noise on the picture")
    guided: bool = Field(default=True, description="go on from every sentence of the reference")
    tries: int = Field(default=5, ge=1, description="N_BDHS; the last of several is unguided and accepted as it is")
    threshold: float = Field(default=0.97, gt=0, le=1, description="eps_s: what is at least so similar is tried again")
    similarity: str = "words"
    temperature: float = Field(default=1.0, gt=0, description="not in the paper, which only says 'sampled'")
    max_new_tokens: int = Field(default=256, gt=0, description="limit of one continued sentence or unguided answer")


@dataclass
class _Attempt:
    """One sample on its `number`-th try (from 1), with the tokens its tries have cost."""

    sample: Sample
    number: int = 1
    tokens: int = 0


@dataclass(frozen=True)
class _BDHSDraft:
    """One sentence of a guided answer, or a whole unguided one: what is kept of it, with the white space before it,
    and the request that continues it.
    """

    kept: str
    request: GenerateRequest


def build_bdhs(samples: Iterable[Sample], tools: RunContext, config: BDHSConfig) -> Iterator[BuildResult]:
    """One pair a sample, chosen = its reference, in the order in which they are finished.

    A row depends on (sample, seed) alone and not on its neighbors: batches, waves and a resumed run give the same
    pairs. Pairs whose rejected answer is empty or equals the reference are made too; the stage drops and counts them.
    """
    similarity = make_similarity(config.similarity)
    source, waiting = iter(samples), deque[_Attempt]()
    while True:
        while len(waiting) < config.wave and (sample := next(source, None)) is not None:
            prefix = prefix_of(sample, tools.folder)
            if fits(tools.vlm, prefix, require_reference(sample), config.max_new_tokens):
                waiting.append(_Attempt(sample))
            else:
                yield BuildResult(sample_id=sample.id, dropped=TOO_LONG)
        if not waiting:
            return
        attempts, waiting = list(waiting), deque()
        answers = _answers(attempts, tools, config)
        alike = similarity(answers, [require_reference(a.sample) for a in attempts])
        for attempt, answer, phi in zip(attempts, answers, alike, strict=True):
            if phi < config.threshold or attempt.number == config.tries:
                yield _made(attempt, answer, phi, config)
            else:
                waiting.append(_Attempt(attempt.sample, attempt.number + 1, attempt.tokens))


def hidden_tokens(rng: np.random.Generator, count: int, rho: float) -> frozenset[int]:
    """Image tokens to hide: token j is visible iff rho_j ~ U(0, 1) is at least rho (Algorithm 1)."""
    return frozenset(int(j) for j in np.flatnonzero(rng.random(count) < rho))


def cut_sentence(rng: np.random.Generator, sentence: str) -> str:
    """The kept beginning of a sentence: yes and no swapped with probability one half, then a random cut.

    Cuts lie at word borders, evenly over all that leave at least one word to continue. A swapped word is never cut
    off, else a swap would change nothing; this and the border are our choice, the paper gives neither.
    """
    swapped = starts_with_yes_no(sentence) and rng.random() >= 0.5
    if not swapped:
        return cut_before_word(sentence, int(rng.integers(count_words(sentence))))
    changed = swap_yes_no(sentence)
    kept = cut_before_word(changed, int(rng.integers(1, max(2, count_words(changed)))))
    return kept.rstrip(".,;:!") if count_words(kept) == 1 else kept


def _answers(attempts: Sequence[_Attempt], tools: RunContext, config: BDHSConfig) -> list[str]:
    """One rejected answer an attempt: all sentences of all attempts are generated in one call per stop rule."""
    drafts = [_drafts(attempt, tools, config) for attempt in attempts]
    guided = [_is_guided(a, config) for a in attempts]
    texts: dict[GenerateRequest, Generation] = {}
    for stop, wanted in (((".",), True), ((), False)):
        requests = [d.request for ds, g in zip(drafts, guided, strict=True) if g == wanted for d in ds]
        if requests:
            generated = generate(
                tools.vlm, requests, config.sampling(stop), batch_size=config.batch_size, autocast=config.autocast
            )
            texts.update(zip(requests, generated, strict=True))
    answers = []
    for attempt, sentences in zip(attempts, drafts, strict=True):
        attempt.tokens += sum(texts[d.request].tokens for d in sentences)
        answers.append("".join(_joined(d.kept, texts[d.request].text) for d in sentences).strip())
    return answers


def _is_guided(attempt: _Attempt, config: BDHSConfig) -> bool:
    """The last of several tries writes the whole answer without the reference (Algorithm 1)."""
    return config.guided and (config.tries == 1 or attempt.number < config.tries)


def _drafts(attempt: _Attempt, tools: RunContext, config: BDHSConfig) -> list[_BDHSDraft]:
    """What to generate for one attempt; mask, noise and cuts are drawn anew on every try."""
    sample = attempt.sample
    rng = sample_rng(tools.seed, sample, attempt.number)
    prefix = prefix_of(sample, tools.folder)
    if config.noise_steps:
        name = f"noise-{config.noise_steps}"
        prefix = replace(prefix, images=tuple(weakened(image, name, tools, rng) for image in prefix.images))
    hidden = hidden_tokens(rng, image_token_count(tools.vlm, prefix), config.rho)
    if not _is_guided(attempt, config):
        return [_BDHSDraft("", GenerateRequest(prefix, "", hidden, int(rng.integers(2**63))))]
    sentences = split_sentences(require_reference(sample))
    drafts = []
    for k, sentence in enumerate(sentences):
        kept = cut_sentence(rng, sentence)
        # The context of sentence k is the true earlier text, never the generated one: diverge and rejoin.
        prefill = "".join([*sentences[:k], kept])
        drafts.append(_BDHSDraft(kept, GenerateRequest(prefix, prefill, hidden, int(rng.integers(2**63)))))
    return drafts


def _joined(kept: str, continuation: str) -> str:
    """Kept words and their continuation, which brings its own space where it starts a new word; nothing if blank."""
    return (kept + continuation).rstrip()


def _made(attempt: _Attempt, answer: str, phi: float, config: BDHSConfig) -> BuildResult:
    sample, similar = attempt.sample, phi >= config.threshold
    provenance = {
        "tries": attempt.number,
        "similarity": round(phi, 6),
        "similar": similar,
        "guided": _is_guided(attempt, config),
        "tokens": attempt.tokens,
    }
    # After try i: what was tried again, and at the last try what was accepted although similar.
    still = {f"share_similar_after_try_{number}": float(attempt.number > number) for number in range(1, config.tries)}
    return BuildResult(
        sample_id=sample.id,
        pairs=(make_pair(sample, BDHS.name, require_reference(sample), answer, provenance=provenance),),
        tallies={**still, f"share_similar_after_try_{config.tries}": similar, "generated_tokens": attempt.tokens},
    )


BDHS = Builder(
    name="bdhs",
    summary="Hide most of the picture and let the model go on from the reference (BDHS, arXiv 2407.02477).",
    config=BDHSConfig,
    build=build_bdhs,
    needs_reference=always,
    remedy="try a higher rho or temperature, or fewer max_new_tokens",
)
