"""Encoding of a prefix and its continuation as token ids and processed images, shared by scoring and sampling.

It renders the chat template, tokenizes, and refuses rows that scorer and sampler would treat differently; nothing is
ever truncated. `packing` combines rows into one sequence.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from jinja2 import TemplateError
from torch import Tensor

from sightline.config.problems import brief
from sightline.data.images import open_image
from sightline.data.turns import Message, merge_system_turns, messages
from sightline.errors import InputError
from sightline.models.pixels import shrink
from sightline.models.requests import Prefix
from sightline.models.vlm import VLM
from sightline.records.rows import IMAGE

#: Keys that a processor returns for the text; all others belong to the images.
TEXT_KEYS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"})
#: Errors that a chat template may raise: its own, the sandbox's, and mistakes in its expressions.
_OF_TEMPLATES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
#: The rule for system turns, a part of cache keys of rows that have one.
SYSTEM_RULE = "system turns open the first user turn where a template has no place for them"
#: A placeholder answer, rendered to find the text that the template puts around an answer.
STAND_IN = "Answer"


class RowTooLong(InputError):
    """Raised for a row that exceeds the model's maximum length; callers may drop and count it."""


@dataclass(frozen=True)
class EncodedImages:
    """The processed images of one prefix: tensors by the processor's names, and the files they came from.

    `media` and `zeroed` are those of `Prefix`: the same file may occur as different kinds, or with zeroed pixels.
    `stamps` are the files' times of change and sizes when they were read.
    """

    paths: tuple[Path, ...]
    tensors: dict[str, Tensor]
    media: tuple[str, ...] = ()
    zeroed: bool = False
    stamps: tuple[tuple[int, int], ...] = ()

    @property
    def shown(self) -> tuple[tuple[Path, ...], tuple[str, ...], bool]:
        """Equal for the same files with the same kinds and zeroing."""
        return self.paths, self.media, self.zeroed


@dataclass(frozen=True)
class EncodedPrefix:
    """A rendered conversation up to and including the generation prompt.

    `ids` has an id for every image feature, `text_ids` one for every image; `lead` and `end` are the strings that the
    chat template puts before and after an answer, `end` including the token that ends the turn. `token_types` are the
    processor's token types of `ids`, for the model's own forward.
    """

    ids: tuple[int, ...]
    text: str
    text_ids: tuple[int, ...]
    lead: str
    end: str
    images: EncodedImages
    token_types: dict[str, Tensor]


@dataclass(frozen=True)
class EncodedRow:
    """A sequence for the model; `ids[start:]` continue the prefix (an answer or a prefill)."""

    ids: tuple[int, ...]
    start: int
    images: EncodedImages


def encode_prefix(vlm: VLM, prefix: Prefix) -> EncodedPrefix:
    """Render, tokenize and process one prefix; recently encoded prefixes come from memory.

    Raises:
        InputError: an image cannot be opened, the prompt is empty or contains a special token, the model does not take
            the media, or the template does not put an answer right after its generation prompt.
    """
    key, stamps = _key(vlm, prefix)

    def make() -> tuple[EncodedPrefix, int]:
        encoded: EncodedPrefix | None = vlm.prefetch.take(key)
        if encoded is None:
            started = time.perf_counter()
            encoded = _encode_prefix(vlm, prefix, stamps)
            if prefix.images:
                vlm.prefetch.record(time.perf_counter() - started)
        return encoded, sum(value.nbytes for value in encoded.images.tensors.values() if isinstance(value, Tensor))

    found: EncodedPrefix = vlm.prefixes.fetch(key, make)
    return found


Stamps = tuple[tuple[int, int], ...]


def _key(vlm: VLM, prefix: Prefix) -> tuple[tuple[Prefix, Stamps, str], Stamps]:
    """The key of an encoded prefix, with its images' stamps: a file that has changed is a different image."""
    stamps = tuple(_stamp(path) for path in prefix.images)
    return (prefix, stamps, str(vlm.processor.chat_template)), stamps


class LookAhead:
    """Encodes the prefixes of `items` in threads, ahead of `encode_prefix`, where their images are worth it."""

    def __init__(self, vlm: VLM, prefixes: Sequence[Prefix]) -> None:
        self._vlm, self._prefixes = vlm, prefixes
        self._next = 0

    def reach(self, end: int) -> None:
        """Start encoding all prefixes before the one at `end`; nothing happens outside `VLM.prefetch.running`."""
        vlm = self._vlm
        while self._next < min(end, len(self._prefixes)) and vlm.prefetch.is_open:
            prefix = self._prefixes[self._next]
            self._next += 1
            key, stamps = _key(vlm, prefix)
            if prefix.images and key not in vlm.prefixes:
                vlm.prefetch.submit(key, vlm.processor, partial(_encode_with, vlm, prefix, stamps))


def _encode_with(vlm: VLM, prefix: Prefix, stamps: Stamps, processor: Any) -> EncodedPrefix:
    return _encode_prefix(replace(vlm, processor=processor), prefix, stamps)


#: Prefixes that `look_ahead` encodes ahead.
AHEAD = 8
Item = TypeVar("Item")


def look_ahead(vlm: VLM, items: Iterable[Item], prefix: Callable[[Item], Prefix]) -> Iterator[Item]:
    """Yield the items in order, while the prefixes of the next ones are encoded in threads."""
    source, waiting = iter(items), list[Item]()
    with vlm.prefetch.running():
        while True:
            waiting += islice(source, AHEAD + 1 - len(waiting))
            if not waiting:
                return
            LookAhead(vlm, [prefix(item) for item in waiting[1:]]).reach(AHEAD)
            yield waiting.pop(0)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0  # opening the file raises the error
    return status.st_mtime_ns, status.st_size


def _encode_prefix(vlm: VLM, prefix: Prefix, stamps: Stamps) -> EncodedPrefix:
    where = _where(prefix)
    if not prefix.prompt.strip():
        raise InputError(f"{where} is empty; give every prefix a prompt")
    for message in (*(turn.text for turn in prefix.history), prefix.prompt):
        _refuse_special_tokens(vlm, message.replace(IMAGE, "") if prefix.images else message, where)
    text, lead, end = _render(vlm, prefix)
    encoded = _process(vlm, prefix, text, where)
    tensors = {key: value for key, value in encoded.items() if key not in TEXT_KEYS}
    shown = _zero_pixels(vlm.path, tensors) if prefix.zeroed else tensors
    images = EncodedImages(prefix.images, shown, prefix.media, prefix.zeroed, stamps)
    types = {key: value for key, value in encoded.items() if key.endswith("token_type_ids")}
    ids = tuple(encoded["input_ids"][0].tolist())
    if vlm.family.processor_adds_lead:
        text, lead = text + lead, ""
    return EncodedPrefix(ids, text, tuple(_tokenize(vlm, text)), lead, end, images, types)


def _zero_pixels(path: str, tensors: dict[str, Any]) -> dict[str, Any]:
    """Replace pixels by zeros, as in V-DPO's released code; sizes, masks and patch positions are unchanged."""
    pixels = [name for name in tensors if name.rpartition(".")[2].startswith("pixel_values")]
    if not pixels:
        raise InputError(f"the processor of {path} returns no pixel_values to replace by zeros; set blind=none")
    return {**tensors, **{name: torch.zeros_like(tensors[name]) for name in pixels}}


def _process(vlm: VLM, prefix: Prefix, text: str, where: str) -> Any:
    """The processor's output for text and images."""
    kwargs = {"text": text, "add_special_tokens": _adds_special_tokens(vlm, text), "return_tensors": "pt"}
    if not vlm.is_multimodal:
        if prefix.images:
            raise InputError(f"{where} has an image, but {vlm.path} is text-only; use a vision-language model")
        return vlm.tokenizer(**kwargs)
    media_kwargs = vlm.family.media_kwargs(prefix.media, len(prefix.images), where)
    pictures = [shrink(open_image(path, where), vlm.max_pixels) for path in prefix.images]
    try:
        return vlm.processor(images=pictures or None, **media_kwargs, **kwargs)
    except (ValueError, LookupError, ArithmeticError) as error:
        raise InputError(f"{where}: the processor of {vlm.path} refuses the images ({_reason(error)})") from error


def model_inputs(vlm: VLM, images: EncodedImages) -> dict[str, Tensor]:
    """The images' tensors on the model's device and in its dtype."""
    return {
        name: value.to(vlm.device, vlm.dtype if value.is_floating_point() else None)
        for name, value in images.tensors.items()
        if isinstance(value, Tensor)
    }


def encode_answer(vlm: VLM, prefix: EncodedPrefix, answer: str) -> EncodedRow:
    """Encode a whole answer, including the token that ends the turn; an empty answer is that token alone.

    Raises:
        InputError, RowTooLong: as in `encode_prefill`.
    """
    continuation = prefix.lead + answer if answer else ""
    row = _continue(vlm, prefix, continuation + prefix.end, answer)
    if row.ids[-1] not in vlm.end_ids or vlm.end_ids.intersection(row.ids[row.start : -1]):
        raise InputError(f"the chat template of {vlm.path} does not end an answer with one end-of-turn token")
    return row


def encode_prefill(vlm: VLM, prefix: EncodedPrefix, prefill: str) -> EncodedRow:
    """Encode the beginning of an answer, for the model to continue; an empty one is the prefix alone.

    Raises:
        InputError: the text contains a special token or would change the tokens of the prefix.
        RowTooLong: the row exceeds the model's maximum length.
    """
    return _continue(vlm, prefix, prefix.lead + prefill if prefill else "", prefill)


def _continue(vlm: VLM, prefix: EncodedPrefix, continuation: str, own_text: str) -> EncodedRow:
    where = f"answer {_shorten(own_text)!r}"
    _refuse_special_tokens(vlm, own_text, where)
    together = _tokenize(vlm, prefix.text + continuation)
    known = len(prefix.text_ids)
    if tuple(together[:known]) != prefix.text_ids:
        raise InputError(
            f"{where} merges with the end of the prompt when tokenized, so its log-probability is undefined; remove "
            "the white space at its beginning, or end the template's generation prompt without white space"
        )
    ids = prefix.ids + tuple(together[known:])
    if len(ids) > vlm.max_tokens:
        raise RowTooLong(
            f"{where} makes a row of {len(ids)} tokens with its prompt and images; {vlm.path} takes {vlm.max_tokens}; "
            "shorten it"
        )
    return EncodedRow(ids, len(prefix.ids), prefix.images)


def _render(vlm: VLM, prefix: Prefix) -> tuple[str, str, str]:
    """The rendered prefix, and the strings that the template puts before and after an answer."""
    turns = messages(prefix.history, prefix.prompt, len(prefix.images), _where(prefix))
    try:
        turns = _merge_system_turns(vlm, turns)
        text = _apply_template(vlm, turns, opens_answer=True)
        whole = _apply_template(vlm, [*turns, ("assistant", [STAND_IN])], opens_answer=False)
    except _OF_TEMPLATES as error:
        roles = ", ".join(role for role, _ in turns)
        raise InputError(
            f"{_where(prefix)}: the chat template of {vlm.path} refuses it ({_reason(error)}); its turns are {roles}"
        ) from error
    before, found, tail = whole.rpartition(STAND_IN)
    # Some published templates open an answer's turn with other white space than their generation prompt; the latter
    # is what the model is prompted with.
    lead = before.removeprefix(text) if before.startswith(text) else ""
    if not found or lead.strip() or before.split() != text.split():
        raise InputError(
            f"the chat template of {vlm.path} does not put an answer right after its generation prompt "
            f"({text[-20:]!r} against {whole[-40:]!r}); give it one that does"
        )
    return text, lead, _end_of_turn(vlm, tail)


def _apply_template(vlm: VLM, turns: Sequence[Message], *, opens_answer: bool) -> str:
    conversation = [{"role": role, "content": _content(vlm, entries)} for role, entries in turns]
    text: str = vlm.processor.apply_chat_template(conversation, add_generation_prompt=opens_answer, tokenize=False)
    return text


def _merge_system_turns(vlm: VLM, turns: list[Message]) -> list[Message]:
    """Move system turns into the first user turn if the template would render them as assistant turns.

    If a template refuses system turns, its error is raised.
    """
    has_system = any(role == "system" for role, _ in turns)
    return merge_system_turns(turns) if has_system and _renders_as_assistant(vlm) else turns


def _renders_as_assistant(vlm: VLM) -> bool:
    """Whether the template renders a system turn as it renders an answer."""
    question: Message = ("user", [STAND_IN])
    system, assistant = (
        _apply_template(vlm, [(role, [STAND_IN]), question], opens_answer=True) for role in ("system", "assistant")
    )
    return system == assistant


def _content(vlm: VLM, entries: Sequence[str | None]) -> Any:
    """A message's content; templates of text-only models expect a string."""
    if not vlm.is_multimodal:
        return "".join(entry for entry in entries if entry is not None)
    return [{"type": "image"} if entry is None else {"type": "text", "text": entry} for entry in entries]


def _end_of_turn(vlm: VLM, tail: str) -> str:
    """The template's tail up to its first end token; the tokenizer's EOS if it has none (as in LLaVA-1.5)."""
    ends = vlm.tokenizer.convert_ids_to_tokens(sorted(vlm.end_ids))
    cuts = [tail.index(end) + len(end) for end in ends if end in tail]
    return tail[: min(cuts)] if cuts else tail.rstrip() + vlm.tokenizer.eos_token


def tokenize(vlm: VLM, text: str, **options: bool) -> Any:
    """Tokenize a rendered text, with special tokens unless the template wrote them."""
    return vlm.tokenizer(text, add_special_tokens=_adds_special_tokens(vlm, text), **options)


def _tokenize(vlm: VLM, text: str) -> list[int]:
    ids: list[int] = tokenize(vlm, text)["input_ids"]
    return ids


def _adds_special_tokens(vlm: VLM, text: str) -> bool:
    """False if the template wrote the BOS token; the rule of `ProcessorMixin.apply_chat_template`."""
    bos = vlm.tokenizer.bos_token
    return bos is None or not text.startswith(bos)


def _refuse_special_tokens(vlm: VLM, text: str, where: str) -> None:
    added = (str(token) for token in vlm.tokenizer.added_tokens_decoder.values() if token.special)
    found = next((token for token in (*vlm.tokenizer.all_special_tokens, *added) if token in text), None)
    if found is not None:
        raise InputError(f"{where} contains the special token {found!r}; remove it from the text")


def _reason(error: Exception) -> str:
    """The first line of a foreign error, or its type if it has no text."""
    lines = str(error).strip().splitlines()
    return brief(lines[0]) if lines else type(error).__name__


def _where(prefix: Prefix) -> str:
    return f"prompt {_shorten(prefix.prompt)!r}"


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def fits(vlm: VLM, prefix: Prefix, prefill: str, new_tokens: int) -> bool:
    """Whether prompt, images, prefill and `new_tokens` more fit the model's maximum length."""
    try:
        row = encode_prefill(vlm, encode_prefix(vlm, prefix), prefill.rstrip())
    except RowTooLong:
        return False
    return len(row.ids) + new_tokens <= vlm.max_tokens
