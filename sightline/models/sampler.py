"""Continue prefixes in batches: prefill, hidden image tokens, stop strings, and a seed for each row.

The decoding loop is ours, over the language model with keys and values of `attention`; which token comes next is
`choosing`. Hidden image tokens are left out while rotary positions stay as they were, which is what a mask over all
layers and heads would do, as Bias-Driven Hallucination Sampling needs it (BDHS; arXiv 2407.02477, sec. 3.4).
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
from sightline.models.head import logits_of
from sightline.models.packing import Continuation, pack, share
from sightline.models.requests import GenerateRequest, Generation, Prefix, Sampling
from sightline.models.scorer import hidden_states
from sightline.models.soundness import not_a_number
from sightline.models.unbatched import plain_continuation
from sightline.models.vlm import VLM, evaluating


def choose_tokens(
    logits: Float[Tensor, "row vocab"], uniforms: Float[Tensor, "row"], *, temperature: float, top_p: float
) -> Int[Tensor, "row"]:
    """The next token of every row; argmax at temperature 0, where `uniforms` (in [0, 1)) go unused.

    Otherwise token t with cumulative probability F(t-1) <= u < F(t), in float64 and in the order of the vocabulary, so
    that rounding moves the borders between tokens by as little as it moves their probabilities.
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.double() / temperature, -1)
    if top_p < 1:
        probabilities = keep_nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(-1)
    return torch.searchsorted(cumulative, uniforms.double()[:, None] * cumulative[:, -1:], right=True)[:, 0]


def keep_nucleus(probabilities: Float[Tensor, "row vocab"], top_p: float) -> Float[Tensor, "row vocab"]:
    """Set to 0 all but the smallest set of likeliest tokens that holds `top_p` (Holtzman et al. 2020); no rescaling."""
    ordered, order = probabilities.sort(dim=-1, descending=True)
    likelier = functional.pad(ordered.cumsum(-1)[..., :-1], (1, 0))  # what the tokens before this one hold
    outside = likelier >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))


#: Batches' worth of requests that are encoded together and then sorted by length; bounds the images held in memory.
WINDOW = 16
#: Tokens before the continuation that decoding looks back on, so that spaces and merged bytes come out right.
LOOK_BACK = 8
#: Tokens for which keys and values have room at first.
ROOM = 16
#: What a decoder writes for bytes that are no character yet.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
#: Share of ended rows that a batch carries along before they are taken out.
IDLE = 0.25


@dataclass
class _Running:
    """One row while it is continued: its sequence, its own random stream, and the ids it got so far."""

    index: int
    prefix: EncodedPrefix
    row: EncodedRow
    request: GenerateRequest
    dropped: str  # leading text of the continuation that the caller does not get, because it is said already
    rng: np.random.Generator
    ids: list[int] = field(default_factory=list)

    @property
    def told(self) -> Continuation:
        """What it goes on from."""
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
    """Continue every request, in the order given; `progress` is told how many have just ended.

    `prefill + text` is natural text: where the model put a space between the two, the text begins with it, unless the
    prefill ends with it; without a prefill the text begins with its first word. The token that ends a turn is not in
    the text; it counts in `tokens`, as do tokens behind a stop string. The model runs in evaluation mode, without
    gradients, and is left in the mode it was in.

    Raises:
        InputError: what `encoding` refuses; `hidden` outside the image tokens; a temperature below 0, a top_p outside
            of (0, 1], no new tokens, or an empty stop string; a row whose logits are NaN.
        RowTooLong: a row could outgrow the model's positions.
    """
    _check_sampling(sampling)
    results: dict[int, Generation] = {}
    with evaluating(vlm):
        for start in range(0, len(requests), WINDOW * batch_size):
            window = requests[start : start + WINDOW * batch_size]
            waiting = _side_by_side(_encode(vlm, window, start, sampling))
            # The longest first: what does not fit into memory shows at once.
            for end in range(len(waiting), 0, -batch_size):
                batch = waiting[max(0, end - batch_size) : end]
                with in_format(vlm, autocast):
                    decode = _decode if vlm.proved else _decode_plainly
                    for index, generation in decode(vlm, batch, sampling):
                        results[index] = generation
                        if progress is not None:
                            progress(1)
    return [results[index] for index in range(len(requests))]


def stream(vlm: VLM, request: GenerateRequest, sampling: Sampling, *, autocast: bool = False) -> Iterator[Generation]:
    """Continue one request, told after every token: the text so far, and at last what `generate` gives for it.

    The same steps as `generate`, so the same text. Characters of which a part is still to come are held back. A
    model that goes the plain way tells its text at once. Between two tokens nothing is held: several may take turns.

    Raises:
        InputError, RowTooLong: as `generate`, at the first token.
    """
    _check_sampling(sampling)
    with evaluating(vlm):
        (running,) = _encode(vlm, [request], 0, sampling)
    plain = ([ended] for ended in _decode_plainly(vlm, [running], sampling))
    steps = iter(_steps(vlm, [running], sampling) if vlm.proved else plain)
    while True:
        # Entered anew for each token: who else runs in this thread must not find gradients off, or on.
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
    """How many image tokens the prefix has, over all its images; `GenerateRequest.hidden` counts in these."""
    return encode_prefix(vlm, prefix).ids.count(vlm.image_token_id)


def _encode(vlm: VLM, requests: Sequence[GenerateRequest], start: int, sampling: Sampling) -> list[_Running]:
    prefixes: dict[Prefix, EncodedPrefix] = {}
    running = []
    for index, request in enumerate(requests, start):
        if request.prefix not in prefixes:
            prefixes[request.prefix] = encode_prefix(vlm, request.prefix)
        prefix = prefixes[request.prefix]
        # White space at the end of a prefill belongs to the next word's token; the model writes it again.
        said = request.prefill.rstrip()
        row = encode_prefill(vlm, prefix, said)
        _check_fit(vlm, row, request, sampling)
        dropped = request.prefill[len(said) :] if said else prefix.lead
        rng = np.random.Generator(np.random.Philox(request.seed))
        running.append(_Running(index, prefix, row, request, dropped, rng))
    return running


def _side_by_side(rows: list[_Running]) -> list[_Running]:
    """Rows that may share their beginning next to each other, the longest of such last, so that batches pad little."""
    longest: dict[tuple[Any, ...], int] = {}
    for running in rows:
        alike = running.told.alike
        longest[alike] = max(longest.get(alike, 0), len(running.row.ids))
    first = {alike: number for number, alike in enumerate(longest)}

    def place(running: _Running) -> tuple[int, int, int]:
        alike = running.told.alike
        return longest[alike], first[alike], len(running.row.ids)

    return sorted(rows, key=place)


def _check_fit(vlm: VLM, row: EncodedRow, request: GenerateRequest, sampling: Sampling) -> None:
    image_tokens = row.ids.count(vlm.image_token_id)
    if request.hidden and not 0 <= min(request.hidden) <= max(request.hidden) < image_tokens:
        raise InputError(f"hidden image tokens {sorted(request.hidden)} are not within 0 to {image_tokens - 1}")
    if len(row.ids) + sampling.max_new_tokens > vlm.max_tokens:
        raise RowTooLong(
            f"a prompt of {len(row.ids)} tokens and {sampling.max_new_tokens} new ones do not fit the "
            f"{vlm.max_tokens} of {vlm.path}; lower max_new_tokens"
        )


def _decode(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
    """Continue one batch, each row until it ends."""
    for ended in _steps(vlm, rows, sampling):
        yield from ended


def _steps(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[list[tuple[int, Generation]]]:
    """One batch token by token, told which rows ended; rows that begin alike share the pass over their beginning."""
    shared = share(vlm, [running.told for running in rows])
    members = [numbers for each in shared for numbers in each.members]
    rows = [rows[number] for numbers in members for number in numbers]
    packed = pack(vlm, [each.row for each in shared])
    running_rows = RunningRows.of(packed, [len(numbers) for numbers in members], min(sampling.max_new_tokens, ROOM))
    hidden = hidden_states(vlm, packed, Prefill(PackedLayout(packed), running_rows))
    last, positions = hidden[running_rows.last], running_rows.reached(packed.positions)
    finished: set[int] = set()
    while True:
        logits = logits_of(vlm, last).float()
        broken = logits.amax(-1).isnan()  # NaN in a row is its maximum
        uniforms = _draw(rows, vlm.device)
        tokens = choose_tokens(logits, uniforms, temperature=sampling.temperature, top_p=sampling.top_p)
        if broken.any():
            raise not_a_number(vlm.path, rows[int(broken.nonzero()[0])].request.prefix)
        told: list[tuple[int, Generation]] = []
        for place, (running, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if place not in finished:
                running.ids.append(token)
                ended = _ended(vlm.tokenizer, running, sampling, vlm.end_ids)
                if ended is not None:
                    finished.add(place)
                    told.append((running.index, ended))
        yield told
        if len(finished) == len(rows):
            return
        positions = positions + 1
        if len(finished) > len(rows) * IDLE:  # taking rows out copies all keys and values, so not for each one
            staying = [place for place in range(len(rows)) if place not in finished]
            kept = torch.tensor(staying, device=vlm.device)
            rows, finished = [rows[place] for place in staying], set()
            running_rows.select(kept)
            tokens, positions = tokens[kept], positions[kept]
        last = _step(vlm, tokens, positions, running_rows)


def _decode_plainly(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
    """Row by row, by Transformers' own sampling."""
    for running in rows:
        if running.request.hidden:
            raise InputError(f"image tokens of {vlm.path} cannot be hidden: its family has no proof yet")
        said = running.row.ids[running.row.start :]
        ids = plain_continuation(vlm, running.prefix, said, sampling, running.request.seed)
        if ids is None:
            raise not_a_number(vlm.path, running.request.prefix)
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
    made = vlm.base.get_decoder()(
        inputs_embeds=vlm.base.get_input_embeddings()(tokens)[:, None],
        position_ids=vlm.family.decoder_positions(positions.expand(vlm.family.axes, -1)[:, :, None]),
        **decoder_arguments(vlm.base, running),
    )
    running.advance()
    hidden: Tensor = made.last_hidden_state[:, 0]
    return hidden


def _draw(rows: Sequence[_Running], device: torch.device) -> Float[Tensor, "row"]:
    """One uniform number of each row's own stream, so that a sample does not depend on the batch."""
    return torch.tensor([running.rng.random() for running in rows], dtype=torch.float64, device=device)


def _ended(tokenizer: Any, running: _Running, sampling: Sampling, end_ids: frozenset[int]) -> Generation | None:
    """The generation, if the row's last token ended it: by end of turn, by a stop string, or by the limit."""
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
    """The continuation as text: decoded together with what it continues, which is then taken off."""
    context = list(running.row.ids[-LOOK_BACK:])
    before = _decode_ids(tokenizer, context)
    return _decode_ids(tokenizer, [*context, *ids])[len(before) :].removeprefix(running.dropped)


def _decode_ids(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


def _check_sampling(sampling: Sampling) -> None:
    if sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
        raise InputError(
            f"temperature {sampling.temperature} and top_p {sampling.top_p} are no way to sample; temperature is 0 "
            "(greedy) or more, top_p more than 0 and at most 1"
        )
    if sampling.max_new_tokens < 1 or "" in sampling.stop:
        raise InputError("max_new_tokens must be at least 1, and a stop string must have at least one character")
