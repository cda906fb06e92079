"""Continue prefixes in batches: prefill, hidden image tokens, stop strings, and a seed for each row.

The decoding loop is ours, over the plain forward of the Hugging Face model with its key-value cache; which token comes
next is `choosing`. Masks hide image tokens from every layer and head while rotary positions stay as they were, as
bottom-driven hallucination sampling needs it (BDHS; arXiv 2407.02477, sec. 3.4).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache

from sightline.errors import InputError
from sightline.models.batching import collate, image_inputs
from sightline.models.choosing import choose_tokens
from sightline.models.encoding import EncodedPrefix, Row, RowTooLong, encode_prefill, encode_prefix
from sightline.models.loading import VLM
from sightline.models.prompts import Generation, Prefix, Request, Sampling

#: Batches' worth of requests that are encoded together and then sorted by length; bounds the images held in memory.
WINDOW = 16
#: Tokens before the continuation that decoding looks back on, so that spaces and merged bytes come out right.
LOOK_BACK = 8


@dataclass
class _Running:
    """One row while it is continued: its sequence, its own random stream, and the ids it got so far."""

    index: int
    row: Row
    request: Request
    dropped: str  # leading text of the continuation that the caller does not get, because it is said already
    rng: np.random.Generator
    ids: list[int] = field(default_factory=list)


def generate(
    vlm: VLM,
    requests: Sequence[Request],
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
            of (0, 1], no new tokens, or an empty stop string.
        RowTooLong: a row could outgrow the model's positions.
    """
    _check_sampling(sampling)
    results: dict[int, Generation] = {}
    with _evaluating(vlm):
        for start in range(0, len(requests), WINDOW * batch_size):
            window = requests[start : start + WINDOW * batch_size]
            waiting = sorted(_encode(vlm, window, start, sampling), key=lambda running: len(running.row.ids))
            # The longest first: what does not fit into memory shows at once.
            for end in range(len(waiting), 0, -batch_size):
                batch = waiting[max(0, end - batch_size) : end]
                with torch.autocast(vlm.device.type, torch.bfloat16, enabled=autocast):
                    for index, generation in _decode(vlm, batch, sampling):
                        results[index] = generation
                        if progress is not None:
                            progress(1)
    return [results[index] for index in range(len(requests))]


def image_token_count(vlm: VLM, prefix: Prefix) -> int:
    """How many image tokens the prefix has, over all its images; `Request.hidden` counts in these."""
    return encode_prefix(vlm, prefix).ids.count(vlm.image_token_id)


def _encode(vlm: VLM, requests: Sequence[Request], start: int, sampling: Sampling) -> list[_Running]:
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
        running.append(_Running(index, row, request, dropped, np.random.Generator(np.random.Philox(request.seed))))
    return running


def _check_fit(vlm: VLM, row: Row, request: Request, sampling: Sampling) -> None:
    image_tokens = row.ids.count(vlm.image_token_id)
    if request.hidden and not 0 <= min(request.hidden) <= max(request.hidden) < image_tokens:
        raise InputError(f"hidden image tokens {sorted(request.hidden)} are not within 0 to {image_tokens - 1}")
    if len(row.ids) + sampling.max_new_tokens > vlm.max_tokens:
        raise RowTooLong(
            f"a prompt of {len(row.ids)} tokens and {sampling.max_new_tokens} new ones do not fit the "
            f"{vlm.max_tokens} of {vlm.path}; lower max_new_tokens"
        )


def _decode(vlm: VLM, rows: list[_Running], sampling: Sampling) -> Iterator[tuple[int, Generation]]:
    """Continue one batch, each row until it ends; a row that has ended leaves the batch and its cache."""
    batch = collate(vlm, [running.row for running in rows], pad="left")
    cache = DynamicCache(config=vlm.base.config.get_text_config())
    visible = batch.real & ~_hidden(vlm, batch.ids, rows)
    positions = batch.positions[:, -1]
    inputs = {"input_ids": batch.ids, "position_ids": batch.positions}
    images = image_inputs(vlm, [running.row for running in rows])
    end_ids = vlm.end_ids
    while True:
        logits = vlm.model(
            **inputs,
            **images,
            attention_mask=visible.long(),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        tokens = choose_tokens(
            logits.float(), _draw(rows, vlm.device), temperature=sampling.temperature, top_p=sampling.top_p
        )
        staying = []
        for place, (running, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            running.ids.append(token)
            ended = _ended(vlm.tokenizer, running, sampling, end_ids)
            if ended is None:
                staying.append(place)
            else:
                yield running.index, ended
        if not staying:
            return
        if len(staying) < len(rows):
            rows = [rows[place] for place in staying]
            kept = torch.tensor(staying, dtype=torch.long, device=vlm.device)
            cache.batch_select_indices(kept)
            tokens, visible, positions = tokens[kept], visible[kept], positions[kept]
        images, positions = {}, positions + 1
        visible = torch.cat([visible, visible.new_ones(len(rows), 1)], dim=1)
        inputs = {"input_ids": tokens[:, None], "position_ids": positions[:, None]}


def _hidden(vlm: VLM, ids: Int[Tensor, "row token"], rows: Sequence[_Running]) -> Bool[Tensor, "row token"]:
    """True at the image tokens that each request hides."""
    image = ids == vlm.image_token_id
    number = image.cumsum(1) - 1
    hidden = [torch.isin(number[place], _tensor(running.request.hidden, ids)) for place, running in enumerate(rows)]
    return image & torch.stack(hidden)


def _tensor(numbers: frozenset[int], like: Int[Tensor, "row token"]) -> Int[Tensor, "hidden"]:
    return torch.tensor(sorted(numbers), dtype=torch.long, device=like.device)


def _draw(rows: Sequence[_Running], device: torch.device) -> Float[Tensor, "row"]:
    """One uniform number of each row's own stream, so that a sample does not depend on the batch."""
    return torch.tensor([running.rng.random() for running in rows], dtype=torch.float64, device=device)


def _ended(tokenizer: Any, running: _Running, sampling: Sampling, end_ids: frozenset[int]) -> Generation | None:
    """The generation, if the row's last token ended it: by end of turn, by a stop string, or by the limit."""
    count = len(running.ids)
    if running.ids[-1] in end_ids:
        return Generation(_text(tokenizer, running, running.ids[:-1]), count, finished=True)
    if not sampling.stop and count < sampling.max_new_tokens:
        return None
    text = _text(tokenizer, running, running.ids)
    cuts = [text.index(stop) + len(stop) for stop in sampling.stop if stop in text]
    if cuts:
        return Generation(text[: min(cuts)], count, finished=True)
    return Generation(text, count, finished=False) if count == sampling.max_new_tokens else None


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


@contextlib.contextmanager
def _evaluating(vlm: VLM) -> Iterator[None]:
    """No dropout and no gradients inside; the mode of training is put back after."""
    training = vlm.model.training
    vlm.model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        vlm.model.train(training)
