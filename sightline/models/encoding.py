"""From a prefix and its continuation to token ids and processed images: the one path for scoring and sampling.

It renders the chat template, tokenizes, and refuses what would not mean the same to scorer and sampler; nothing is ever
cut to fit. How rows become a batch of tensors is `batching`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from torch import Tensor

from sightline.config.problems import brief
from sightline.data.images import open_image
from sightline.data.turns import Message, messages
from sightline.errors import InputError
from sightline.models.requests import Prefix
from sightline.models.vlm import VLM
from sightline.models.zeroed import zero_pixels
from sightline.records.rows import IMAGE

#: What a processor returns for the text; the rest belongs to the images.
TEXT_KEYS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "labels"})
#: What a chat template raises: its own refusals, the sandbox's, and mistakes in its expressions.
_OF_TEMPLATES = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
#: Names how system turns are rendered, for keys of what is kept of a row that has one.
SYSTEM_RULE = "system turns open the first user turn where a template has no place for them"
#: Stands for the answer while the template is rendered, to learn what the template puts around one.
STAND_IN = "Answer"


class RowTooLong(InputError):
    """The one refusal a caller may answer by dropping the row and counting it: it exceeds the model's positions."""


@dataclass(frozen=True)
class EncodedImages:
    """The processed images of one prefix: tensors as the processor names them, and the paths they came from.

    `media` and `zeroed` are those of `Prefix`: a file may be shown as one kind here, as another or as zeros there.
    """

    paths: tuple[Path, ...]
    tensors: dict[str, Tensor]
    media: tuple[str, ...] = ()
    zeroed: bool = False

    @property
    def shown(self) -> tuple[tuple[Path, ...], tuple[str, ...], bool]:
        """Equal for the same files shown in the same way."""
        return self.paths, self.media, self.zeroed


@dataclass(frozen=True)
class EncodedPrefix:
    """A rendered user turn up to and with the generation prompt.

    `ids` has an id for every image feature, `text_ids` one for every image; `lead` and `end` are the strings that the
    chat template puts before and after an answer, `end` with the token that ends the turn. `token_types` are what the
    processor says of each id, for a family's own forward.
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
    """One sequence for the model; `ids[start:]` continue the prefix (an answer, or what was said already)."""

    ids: tuple[int, ...]
    start: int
    images: EncodedImages


def encode_prefix(vlm: VLM, prefix: Prefix) -> EncodedPrefix:
    """Render, tokenize and process one prefix; what was encoded lately is not encoded again.

    Raises:
        InputError: an image that cannot be opened, an empty prompt, a special token spelled out in the prompt, media
            that the model does not take, a template that does not put an answer right after its generation prompt.
    """

    def make() -> tuple[EncodedPrefix, int]:
        made = _encode_prefix(vlm, prefix)
        return made, sum(value.nbytes for value in made.images.tensors.values() if isinstance(value, Tensor))

    # A file that was written again is another picture.
    stamps = tuple(_stamp(path) for path in prefix.images)
    made: EncodedPrefix = vlm.prefixes.fetch((prefix, stamps, str(vlm.processor.chat_template)), make)
    return made


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0  # opening it says what is wrong
    return status.st_mtime_ns, status.st_size


def _encode_prefix(vlm: VLM, prefix: Prefix) -> EncodedPrefix:
    where = _where(prefix)
    if not prefix.prompt.strip():
        raise InputError(f"{where} is empty; every prefix needs a prompt")
    for said in (*(turn.text for turn in prefix.history), prefix.prompt):
        _refuse_special_tokens(vlm, said.replace(IMAGE, "") if prefix.images else said, where)
    text, lead, end = _render(vlm, prefix)
    encoded = _process(vlm, prefix, text, where)
    tensors = {key: value for key, value in encoded.items() if key not in TEXT_KEYS}
    shown = zero_pixels(vlm.path, tensors) if prefix.zeroed else tensors
    images = EncodedImages(prefix.images, shown, prefix.media, prefix.zeroed)
    types = {key: value for key, value in encoded.items() if key.endswith("token_type_ids")}
    ids = tuple(encoded["input_ids"][0].tolist())
    if vlm.family.processor_adds_lead:
        text, lead = text + lead, ""
    return EncodedPrefix(ids, text, tuple(_tokenize(vlm, text)), lead, end, images, types)


def _process(vlm: VLM, prefix: Prefix, text: str, where: str) -> Any:
    """What the processor makes of text and pictures."""
    asked = {"text": text, "add_special_tokens": _adds_special_tokens(vlm, text), "return_tensors": "pt"}
    if not vlm.sees:
        if prefix.images:
            raise InputError(f"{where} comes with a picture, and {vlm.path} takes none; name a model that sees")
        return vlm.tokenizer(**asked)
    told = vlm.family.told_of_media(prefix.media, len(prefix.images), where)
    pictures = [open_image(path, where) for path in prefix.images]
    try:
        return vlm.processor(images=pictures or None, **told, **asked)
    except (ValueError, LookupError, ArithmeticError) as error:
        raise InputError(f"{where}: the processor of {vlm.path} refuses it ({_reason(error)})") from error


def model_inputs(vlm: VLM, images: EncodedImages) -> dict[str, Tensor]:
    """The images' tensors where the model is, in its number format."""
    return {
        name: value.to(vlm.device, vlm.dtype if value.is_floating_point() else None)
        for name, value in images.tensors.items()
        if isinstance(value, Tensor)
    }


def encode_answer(vlm: VLM, prefix: EncodedPrefix, answer: str) -> EncodedRow:
    """The row of a whole answer, the token that ends the turn included; an empty answer is that token alone.

    Raises:
        InputError, RowTooLong: as `encode_prefill`.
    """
    continuation = prefix.lead + answer if answer else ""
    row = _continue(vlm, prefix, continuation + prefix.end, answer)
    if row.ids[-1] not in vlm.end_ids or vlm.end_ids.intersection(row.ids[row.start : -1]):
        raise InputError(f"the chat template of {vlm.path} does not end an answer with one end-of-turn token")
    return row


def encode_prefill(vlm: VLM, prefix: EncodedPrefix, prefill: str) -> EncodedRow:
    """The row of an answer's beginning, for the model to go on from; an empty one is the prefix alone.

    Raises:
        InputError: a special token spelled out in the text; text that would change the tokens of the prefix.
        RowTooLong: the row is longer than the model's positions.
    """
    return _continue(vlm, prefix, prefix.lead + prefill if prefill else "", prefill)


def _continue(vlm: VLM, prefix: EncodedPrefix, continuation: str, said: str) -> EncodedRow:
    where = f"answer {_shorten(said)!r}"
    _refuse_special_tokens(vlm, said, where)
    together = _tokenize(vlm, prefix.text + continuation)
    known = len(prefix.text_ids)
    if tuple(together[:known]) != prefix.text_ids:
        raise InputError(
            f"{where} merges with the end of the prompt when tokenized, so that its log-probability has no meaning; "
            "take the white space off its beginning or give the chat template a firm generation prompt"
        )
    ids = prefix.ids + tuple(together[known:])
    if len(ids) > vlm.max_tokens:
        raise RowTooLong(
            f"{where} makes a row of {len(ids)} tokens with its prompt and images; {vlm.path} takes {vlm.max_tokens}"
        )
    return EncodedRow(ids, len(prefix.ids), prefix.images)


def _render(vlm: VLM, prefix: Prefix) -> tuple[str, str, str]:
    """The rendered prefix, and the strings that the template puts before and after an answer."""
    told = messages(prefix.history, prefix.prompt, len(prefix.images), _where(prefix))
    try:
        told = _with_system_told(vlm, told)
        text = _templated(vlm, told, opens_answer=True)
        whole = _templated(vlm, [*told, ("assistant", [STAND_IN])], opens_answer=False)
    except _OF_TEMPLATES as error:
        roles = ", ".join(role for role, _ in told)
        raise InputError(
            f"{_where(prefix)}: the chat template of {vlm.path} refuses it ({_reason(error)}); its turns are {roles}"
        ) from error
    before, found, tail = whole.rpartition(STAND_IN)
    # Some published templates open an answer's turn with other white space than their generation prompt has: what the
    # model is asked with is the latter.
    lead = before.removeprefix(text) if before.startswith(text) else ""
    if not found or lead.strip() or before.split() != text.split():
        raise InputError(
            f"the chat template of {vlm.path} does not put an answer right after its generation prompt "
            f"({text[-20:]!r} against {whole[-40:]!r}); give it one that does"
        )
    return text, lead, _end_of_turn(vlm, tail)


def _templated(vlm: VLM, told: Sequence[Message], *, opens_answer: bool) -> str:
    asked = [{"role": role, "content": _content(vlm, entries)} for role, entries in told]
    text: str = vlm.processor.apply_chat_template(asked, add_generation_prompt=opens_answer, tokenize=False)
    return text


def _with_system_told(vlm: VLM, told: list[Message]) -> list[Message]:
    """The turns; system turns open the first user turn where the template would render them as the assistant's words.

    Templates do so that know two roles, `user` and all others. As with `data.turns`, the text stands behind the images.
    A template that refuses system turns is left to refuse them.
    """
    system = [entries for role, entries in told if role == "system"]
    if not system or not _takes_for_assistant(vlm):
        return told
    rest = [(role, entries) for role, entries in told if role != "system"]
    first = next(place for place, (role, _) in enumerate(rest) if role == "user")
    opening = "".join(f"{entry}\n" for entries in system for entry in entries if entry is not None)
    entries = rest[first][1]
    place = next((place for place, entry in enumerate(entries) if entry is not None), len(entries))
    opened = [*entries[:place], opening + "".join(entry or "" for entry in entries[place : place + 1])]
    return [*rest[:first], ("user", [*opened, *entries[place + 1 :]]), *rest[first + 1 :]]


def _takes_for_assistant(vlm: VLM) -> bool:
    """Whether the template renders a system turn as it renders an answer."""
    asked: Message = ("user", [STAND_IN])
    system, assistant = (
        _templated(vlm, [(role, [STAND_IN]), asked], opens_answer=True) for role in ("system", "assistant")
    )
    return system == assistant


def _content(vlm: VLM, entries: Sequence[str | None]) -> Any:
    """A message's content; templates of models without eyes want a plain string."""
    if not vlm.sees:
        return "".join(entry for entry in entries if entry is not None)
    return [{"type": "image"} if entry is None else {"type": "text", "text": entry} for entry in entries]


def _end_of_turn(vlm: VLM, tail: str) -> str:
    """The template's end up to its first end token; the tokenizer's own where the template (LLaVA-1.5's) has none."""
    ends = vlm.tokenizer.convert_ids_to_tokens(sorted(vlm.end_ids))
    cuts = [tail.index(end) + len(end) for end in ends if end in tail]
    return tail[: min(cuts)] if cuts else tail.rstrip() + vlm.tokenizer.eos_token


def tokenize(vlm: VLM, text: str, **options: bool) -> Any:
    """What the tokenizer makes of a rendered text, with special tokens where the template wrote none."""
    return vlm.tokenizer(text, add_special_tokens=_adds_special_tokens(vlm, text), **options)


def _tokenize(vlm: VLM, text: str) -> list[int]:
    ids: list[int] = tokenize(vlm, text)["input_ids"]
    return ids


def _adds_special_tokens(vlm: VLM, text: str) -> bool:
    """Not if the template wrote the first token itself; the rule of `ProcessorMixin.apply_chat_template`."""
    bos = vlm.tokenizer.bos_token
    return bos is None or not text.startswith(bos)


def _refuse_special_tokens(vlm: VLM, text: str, where: str) -> None:
    added = (str(token) for token in vlm.tokenizer.added_tokens_decoder.values() if token.special)
    found = _first_of((*vlm.tokenizer.all_special_tokens, *added), text)
    if found is not None:
        raise InputError(f"{where} spells out the special token {found!r}; remove it from the text")


def _first_of(tokens: Iterable[str], text: str) -> str | None:
    return next((token for token in tokens if token in text), None)


def _reason(error: Exception) -> str:
    """What an error of others says, its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return brief(lines[0]) if lines else type(error).__name__


def _where(prefix: Prefix) -> str:
    return f"prompt {_shorten(prefix.prompt)!r}"


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def fits(vlm: VLM, prefix: Prefix, prefill: str, new_tokens: int) -> bool:
    """Whether prompt, images, what is said already and `new_tokens` more fit the positions of the model."""
    try:
        row = encode_prefill(vlm, encode_prefix(vlm, prefix), prefill.rstrip())
    except RowTooLong:
        return False
    return len(row.ids) + new_tokens <= vlm.max_tokens
