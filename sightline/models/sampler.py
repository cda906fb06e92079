"""Batched generation: prefill, hidden image tokens, stop strings, and a seed per row.

The model's way (`models.ways`) computes the rows. Hidden image tokens are masked in all layers and heads, or left out
while rotary positions stay unchanged, which is equal, as Bias-Driven Hallucination Sampling requires (BDHS; arXiv
2407.02477, sec. 3.4).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sightline.errors import InputError
from sightline.models.device import in_format, read_values, to_device
from sightline.models.encoding import (
    EncodedPrefix,
    EncodedRow,
    LookAhead,
    RowTooLong,
    encode_prefill,
    encode_prefix,
)
from sightline.models.memory import SAMPLING, attempt, halve
from sightline.models.packing import Continuation
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling
from sightline.models.soundness import nan_error
from sightline.models.stopping import UNFINISHED, StopRule, continuation_text
from sightline.models.vlm import VLM, evaluating


def choose_tokens(
    logits: Float[Tensor, "row vocab"], uniforms: Float[Tensor, "row"], *, temperature: float, top_p: float
) -> Int[Tensor, "row"]:
    """Choose the next token of every row; argmax at temperature 0, where `uniforms` (in [0, 1)) are unused.

    Otherwise token t with cumulative probability F(t-1) <= u < F(t), in float64 and in vocabulary order, so that
    rounding shifts the boundaries between tokens no more than their probabilities.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.double() / temperature, -1)
    if top_p < 1:
        probabilities = keep_nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniforms.double()[:, None] * cumulative[:, -1:], right=True)[:, 0]


def keep_nucleus(probabilities: Float[Tensor, "row vocab"], top_p: float) -> Float[Tensor, "row vocab"]:
    """Zero all but the smallest set of likeliest tokens with mass `top_p` (Holtzman et al. 2020), without rescaling."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    likelier = functional.pad(ordered.cumsum(-1)[..., :-1], (1, 0))  # the mass of likelier tokens
    outside = likelier >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))


#: Number of batches encoded together and then sorted by length; bounds the images held in memory.
WINDOW = 16
#: Fraction of finished rows at which a batch is compacted.
IDLE = 0.25


@dataclass
class _Running:
    """A row being continued: its sequence, its own random generator, and the ids generated so far."""

    index: int
    prefix: EncodedPrefix
    row: EncodedRow
    request: GenerateRequest
    dropped: str  # leading text of the continuation that the prefill already contains, removed from the result
    rng: np.random.Generator
    ids: list[int] = field(default_factory=list)

    @property
    def continuation(self) -> Continuation:
        """The tokens that the row continues."""
        return Continuation(self.prefix, self.row.ids[self.row.start :], self.request.hidden)

    def restarted(self) -> "_Running":
        """The row before its first token."""
        return replace(self, rng=np.random.Generator(np.random.Philox(self.request.seed)), ids=[])


def generate(
    vlm: VLM,
    requests: Sequence[GenerateRequest],
    sampling: Sampling,
    *,
    batch_size: int,
    autocast: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Generation]:
    """Generate a continuation of every request, in order; `progress` gets the number of newly finished rows.

    `prefill + text` is natural text: if the model puts a space between the two, the text begins with it unless the
    prefill ends with it; without a prefill the text begins with its first word. The token that ends a turn is not in
    the text; it counts in `tokens`, as do tokens after a stop string. The model runs in evaluation mode without
    gradients; its mode is restored.

    Raises:
        InputError: `encoding` refuses a request; `hidden` is outside the image tokens; a temperature below 0, a top_p
            outside (0, 1], no new tokens, or an empty stop string; the logits of a row are NaN.
        RowTooLong: a row could exceed the model's maximum length.

    Examples:
        >>> request = sl.GenerateRequest(sl.Prefix((image,), "Describe the image."))
        >>> (answer,) = sl.generate(vlm, [request], sl.Sampling(max_new_tokens=64), batch_size=1)
        >>> print(answer.text)
    """
    _check_sampling(sampling)
    results: dict[int, Generation] = {}

    def finish(index: int, generation: Generation) -> None:
        if progress is not None and index not in results:
            progress(1)
        results[index] = generation

    size = batch_size  # rows in a pass, fewer where memory does not suffice
    with evaluating(vlm), vlm.prefetch.running():
        ahead = LookAhead(vlm, [request.prefix for request in requests])
        for start in range(0, len(requests), WINDOW * batch_size):
            end = start + WINDOW * batch_size
            waiting = _sorted_by_length(_encode(vlm, requests[start:end], start, sampling, ahead))
            # The longest first, so that running out of memory shows at once.
            while waiting:
                batch, waiting = waiting[-size:], waiting[:-size]
                end += size
                ahead.reach(end)
                _, failure = attempt(partial(_decode_all, vlm, batch, sampling, autocast, finish))
                if failure is not None:
                    size = halve(vlm, len(batch), failure, remedy=SAMPLING)
                    waiting = [*waiting, *(running.restarted() for running in batch)]
    return [results[index] for index in range(len(requests))]


def stream(vlm: VLM, request: GenerateRequest, sampling: Sampling, *, autocast: bool = False) -> Iterator[Generation]:
    """Continue one request, yielding the text so far after every token and finally the result of `generate`.

    The steps, and so the text, are those of `generate`. Incomplete characters are held back. Streams may be
    interleaved.

    Raises:
        InputError, RowTooLong: as in `generate`, at the first token.
    """
    _check_sampling(sampling)
    with evaluating(vlm):
        (running,) = _encode(vlm, [request], 0, sampling, LookAhead(vlm, ()))
    steps = _steps(vlm, [running], sampling)
    while True:
        # Entered for each token: other code in this thread must find its own gradient mode.
        with evaluating(vlm), in_format(vlm, autocast):
            ended = next(steps, None)
        if ended is None:
            return
        if ended:
            yield ended[0][1]
        else:
            ids = tuple(running.ids)
            text = continuation_text(vlm.tokenizer, running.row.ids, ids, running.dropped).rstrip(UNFINISHED)
            yield Generation(text, len(ids), finished=False, ids=ids)


def image_token_count(vlm: VLM, prefix: Prefix) -> int:
    """The number of image tokens of the prefix over all images; `GenerateRequest.hidden` indexes these."""
    return encode_prefix(vlm, prefix).ids.count(vlm.image_token_id)


def _encode(
    vlm: VLM, requests: Sequence[GenerateRequest], start: int, sampling: Sampling, ahead: LookAhead
) -> list[_Running]:
    prefixes: dict[Prefix, EncodedPrefix] = {}
    running = []
    for index, request in enumerate(requests, start):
        if request.prefix not in prefixes:
            prefixes[request.prefix] = encode_prefix(vlm, request.prefix)
            ahead.reach(start + len(requests))
        prefix = prefixes[request.prefix]
        # White space at the end of a prefill belongs to the next word's token; the model generates it again.
        prefill = request.prefill.rstrip()
        row = encode_prefill(vlm, prefix, prefill)
        _check_fit(vlm, row, request, sampling)
        dropped = request.prefill[len(prefill) :] if prefill else prefix.lead
        rng = np.random.Generator(np.random.Philox(request.seed))
        running.append(_Running(index, prefix, row, request, dropped, rng))
    return running


def _sorted_by_length(rows: list[_Running]) -> list[_Running]:
    """Rows that may share a prefix next to each other, the longest groups last, so that batches pad little."""
    longest: dict[tuple[Any, ...], int] = {}
    for running in rows:
        group = running.continuation.group
        longest[group] = max(longest.get(group, 0), len(running.row.ids))
    first = {group: number for number, group in enumerate(longest)}

    def place(running: _Running) -> tuple[int, int, int]:
        group = running.continuation.group
        return longest[group], first[group], len(running.row.ids)

    return sorted(rows, key=place)


def _check_fit(vlm: VLM, row: EncodedRow, request: GenerateRequest, sampling: Sampling) -> None:
    image_tokens = row.ids.count(vlm.image_token_id)
    if request.hidden and not 0 <= min(request.hidden) <= max(request.hidden) < image_tokens:
        raise InputError(f"hidden image tokens {sorted(request.hidden)} are not within 0 to {image_tokens - 1}")
    if len(row.ids) + sampling.max_new_tokens > vlm.max_tokens:
        raise RowTooLong(
            f"a prompt of {len(row.ids)} tokens and {sampling.max_new_tokens} new ones exceed the maximum length "
            f"{vlm.max_tokens} of {vlm.path}; lower max_new_tokens"
        )


def _decode_all(
    vlm: VLM, batch: list[_Running], sampling: Sampling, autocast: bool, finish: Callable[[int, Generation], None]
) -> None:
    """Continue the rows of one batch, and call `finish` with each that has ended."""
    with in_format(vlm, autocast):
        for index, generation in _decode(vlm, batch, sampling):
            finish(index, generation)


def _decode(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
    """Continue the rows of one batch until each has ended."""
    for ended in _steps(vlm, rows, sampling):
        yield from ended


def _steps(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[list[tuple[int, Generation]]]:
    """Decode one batch token by token, yielding the rows that ended."""
    decoding = vlm.way.start(vlm, [running.continuation for running in rows], sampling.max_new_tokens)
    rows = [rows[number] for number in decoding.order]
    finished: set[int] = set()
    rule = StopRule(vlm.tokenizer, sampling, vlm.end_ids)
    while True:
        logits = decoding.logits
        broken = logits.amax(-1).isnan()  # NaN in a row is its maximum
        uniforms = _draw(rows, vlm.device)
        tokens = choose_tokens(logits, uniforms, temperature=sampling.temperature, top_p=sampling.top_p)
        chosen = read_values(tokens.masked_fill(broken, -1))  # the only wait for the device in a step
        if -1 in chosen:
            raise nan_error(vlm.path, rows[chosen.index(-1)].request.prefix)
        ended_rows: list[tuple[int, Generation]] = []
        for place, (running, token) in enumerate(zip(rows, chosen, strict=True)):
            if place not in finished:
                running.ids.append(token)
                ended = _ended(running, rule)
                if ended is not None:
                    finished.add(place)
                    ended_rows.append((running.index, ended))
        yield ended_rows
        if len(finished) == len(rows):
            return
        if len(finished) > len(rows) * IDLE:  # compacting copies all keys and values, so not after every row
            staying = [place for place in range(len(rows)) if place not in finished]
            rows, finished = [rows[place] for place in staying], set()
            tokens = tokens[decoding.select(staying)]
        decoding.step(tokens)


def _draw(rows: Sequence[_Running], device: torch.device) -> Float[Tensor, "row"]:
    """One uniform number per row from its own generator, so that a sample does not depend on the batch."""
    return to_device(torch.tensor([running.rng.random() for running in rows], dtype=torch.float64), device)


def _ended(running: _Running, rule: StopRule) -> Generation | None:
    """The generation if the row's last token ended it, else None."""
    found = rule.ended_text(running.row.ids, running.ids, running.dropped)
    if found is None:
        return None
    text, is_finished = found
    return Generation(text, len(running.ids), finished=is_finished, ids=tuple(running.ids))


def _check_sampling(sampling: Sampling) -> None:
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise InputError(
            f"temperature {sampling.temperature} and top_p {sampling.top_p} are not valid; temperature must be at "
            "least 0 (greedy), top_p greater than 0 and at most 1"
        )
    if sampling.max_new_tokens < 1 or "" in sampling.stop:
        raise InputError("max_new_tokens must be at least 1, and a stop string must have at least one character")
