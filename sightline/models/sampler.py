"""Batched generation: prefill, hidden image tokens, stop strings, and a seed per row.

The decoding loop runs the language model with the key-value buffers of `attention`. Hidden image tokens are dropped
while rotary positions stay unchanged, which equals masking them in all layers and heads, as Bias-Driven Hallucination
Sampling requires (BDHS; arXiv 2407.02477, sec. 3.4).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from sightline.errors import InputError
from sightline.models.attention import PackedLayout, Prefill, RunningRows, decoder_arguments
from sightline.models.device import in_format
from sightline.models.encoding import EncodedPrefix, EncodedRow, RowTooLong, encode_prefill, encode_prefix
from sightline.models.head import head_logits
from sightline.models.packing import Continuation, pack, share_prefixes
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling
from sightline.models.scorer import hidden_states
from sightline.models.soundness import nan_error
from sightline.models.unbatched import unbatched_continuation
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
#: Tokens before the continuation that are decoded with it, so that spaces and split bytes come out right.
LOOK_BACK = 8
#: Initial capacity, in new tokens, of the key-value buffers.
ROOM = 16
#: Decoded form of an incomplete character.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
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
    with evaluating(vlm):
        for start in range(0, len(requests), WINDOW * batch_size):
            window = requests[start : start + WINDOW * batch_size]
            waiting = _sorted_by_length(_encode(vlm, window, start, sampling))
            # The longest first, so that running out of memory shows at once.
            for end in range(len(waiting), 0, -batch_size):
                batch = waiting[max(0, end - batch_size) : end]
                with in_format(vlm, autocast):
                    decode = _decode if vlm.supports_packing else _decode_unbatched
                    for index, generation in decode(vlm, batch, sampling):
                        results[index] = generation
                        if progress is not None:
                            progress(1)
    return [results[index] for index in range(len(requests))]


def stream(vlm: VLM, request: GenerateRequest, sampling: Sampling, *, autocast: bool = False) -> Iterator[Generation]:
    """Continue one request, yielding the text so far after every token and finally the result of `generate`.

    The steps, and so the text, are those of `generate`. Incomplete characters are held back. A model that is not
    verified for packing yields only its final text. Streams may be interleaved.

    Raises:
        InputError, RowTooLong: as in `generate`, at the first token.
    """
    _check_sampling(sampling)
    with evaluating(vlm):
        (running,) = _encode(vlm, [request], 0, sampling)
    unbatched = ([ended] for ended in _decode_unbatched(vlm, [running], sampling))
    steps = iter(_steps(vlm, [running], sampling) if vlm.supports_packing else unbatched)
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
            text = _text(vlm.tokenizer, running, ids).rstrip(UNFINISHED)
            yield Generation(text, len(ids), finished=False, ids=ids)


def image_token_count(vlm: VLM, prefix: Prefix) -> int:
    """The number of image tokens of the prefix over all images; `GenerateRequest.hidden` indexes these."""
    return encode_prefix(vlm, prefix).ids.count(vlm.image_token_id)


def _encode(vlm: VLM, requests: Sequence[GenerateRequest], start: int, sampling: Sampling) -> list[_Running]:
    prefixes: dict[Prefix, EncodedPrefix] = {}
    running = []
    for index, request in enumerate(requests, start):
        if request.prefix not in prefixes:
            prefixes[request.prefix] = encode_prefix(vlm, request.prefix)
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


def _decode(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
    """Continue the rows of one batch until each has ended."""
    for ended in _steps(vlm, rows, sampling):
        yield from ended


def _steps(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[list[tuple[int, Generation]]]:
    """Decode one batch token by token, yielding the rows that ended; common prefixes are computed once."""
    shared = share_prefixes(vlm, [running.continuation for running in rows])
    members = [numbers for each in shared for numbers in each.members]
    rows = [rows[number] for numbers in members for number in numbers]
    packed = pack(vlm, [each.row for each in shared])
    running_rows = RunningRows.of(packed, [len(numbers) for numbers in members], min(sampling.max_new_tokens, ROOM))
    hidden = hidden_states(vlm, packed, Prefill(PackedLayout(packed), running_rows))
    last, positions = hidden[running_rows.last], running_rows.last_positions(packed.positions)
    finished: set[int] = set()
    while True:
        logits = head_logits(vlm, last).float()
        broken = logits.amax(-1).isnan()  # NaN in a row is its maximum
        uniforms = _draw(rows, vlm.device)
        tokens = choose_tokens(logits, uniforms, temperature=sampling.temperature, top_p=sampling.top_p)
        if broken.any():
            raise nan_error(vlm.path, rows[int(broken.nonzero()[0])].request.prefix)
        ended_rows: list[tuple[int, Generation]] = []
        for place, (running, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if place not in finished:
                running.ids.append(token)
                ended = _ended(vlm.tokenizer, running, sampling, vlm.end_ids)
                if ended is not None:
                    finished.add(place)
                    ended_rows.append((running.index, ended))
        yield ended_rows
        if len(finished) == len(rows):
            return
        positions = positions + 1
        if len(finished) > len(rows) * IDLE:  # compacting copies all keys and values, so not after every row
            staying = [place for place in range(len(rows)) if place not in finished]
            kept = torch.tensor(staying, device=vlm.device)
            rows, finished = [rows[place] for place in staying], set()
            running_rows.select(kept)
            tokens, positions = tokens[kept], positions[kept]
        last = _step(vlm, tokens, positions, running_rows)


def _decode_unbatched(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
    """Generate one row at a time with Transformers' own sampling."""
    for running in rows:
        if running.request.hidden:
            raise InputError(f"image tokens of {vlm.path} cannot be hidden: its model type is not verified for packing")
        prefill = running.row.ids[running.row.start :]
        ids = unbatched_continuation(vlm, running.prefix, prefill, sampling, running.request.seed)
        if ids is None:
            raise nan_error(vlm.path, running.request.prefix)
        for token in ids:
            running.ids.append(token)
            ended = _ended(vlm.tokenizer, running, sampling, vlm.end_ids)
            if ended is not None:
                yield running.index, ended
                break


def _step(
    vlm: VLM, tokens: Int[Tensor, "row"], positions: Int[Tensor, "row"], running: RunningRows
) -> Float[Tensor, "row dim"]:
    """Hidden states after one more token of each row."""
    output = vlm.base.get_decoder()(
        inputs_embeds=vlm.base.get_input_embeddings()(tokens)[:, None],
        position_ids=vlm.family.decoder_positions(positions.expand(vlm.family.axes, -1)[:, :, None]),
        **decoder_arguments(vlm.base, running),
    )
    running.advance()
    hidden: Tensor = output.last_hidden_state[:, 0]
    return hidden


def _draw(rows: Sequence[_Running], device: torch.device) -> Float[Tensor, "row"]:
    """One uniform number per row from its own generator, so that a sample does not depend on the batch."""
    return torch.tensor([running.rng.random() for running in rows], dtype=torch.float64, device=device)


def _ended(tokenizer: Any, running: _Running, sampling: Sampling, end_ids: frozenset[int]) -> Generation | None:
    """The generation if the row's last token ended it (end of turn, stop string or token limit), else None."""
    count = len(running.ids)
    if running.ids[-1] not in end_ids and not sampling.stop and count < sampling.max_new_tokens:
        return None
    ids = tuple(running.ids)
    if ids[-1] in end_ids:
        return Generation(_text(tokenizer, running, ids[:-1]), count, finished=True, ids=ids)
    text = _text(tokenizer, running, ids)
    cuts = [text.index(stop) + len(stop) for stop in sampling.stop if stop in text]
    if cuts:
        return Generation(text[: min(cuts)], count, finished=True, ids=ids)
    return Generation(text, count, finished=False, ids=ids) if count == sampling.max_new_tokens else None


def _text(tokenizer: Any, running: _Running, ids: Sequence[int]) -> str:
    """The continuation as text, decoded with the tokens before it, whose text is then removed."""
    context = list(running.row.ids[-LOOK_BACK:])
    before = _decode_ids(tokenizer, context)
    return _decode_ids(tokenizer, [*context, *ids])[len(before) :].removeprefix(running.dropped)


def _decode_ids(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _check_sampling(sampling: Sampling) -> None:
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise InputError(
            f"temperature {sampling.temperature} and top_p {sampling.top_p} are not valid; temperature must be at "
            "least 0 (greedy), top_p greater than 0 and at most 1"
        )
    if sampling.max_new_tokens < 1 or "" in sampling.stop:
        raise InputError("max_new_tokens must be at least 1, and a stop string must have at least one character")
