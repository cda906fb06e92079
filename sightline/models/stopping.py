"""The end of a generated row: end of turn, stop string or token limit, and the row's text.

A row's text is decoded when it ends, and for a stop string only after a token that can complete one. A stop string that
was not in the text before can appear only with its last character, so the new token's own text must contain that
character, or change characters before it, as bytes of a split character do.
"""

import re
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sightline.models.requests import Sampling

#: Tokens before the continuation that are decoded with it, so that spaces and split bytes come out right.
LOOK_BACK = 8
#: Decoded form of an incomplete character.
UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TokenTexts:
    """The characters that each token of a tokenizer can add to a text, found at the token's first use."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, frozenset[str] | None] = {}
        before = tokenizer("a", add_special_tokens=False)["input_ids"]
        self._before = list(before)
        self._before_text = decode_ids(tokenizer, self._before)

    def can_end(self, token: int, characters: frozenset[str]) -> bool:
        """Whether text that ends with one of `characters` can appear with this token."""
        if token not in self._known:
            self._known[token] = self._characters(token)
        own = self._known[token]
        return own is None or not own.isdisjoint(characters)

    def _characters(self, token: int) -> frozenset[str] | None:
        """The characters of the token alone and after another one; None if it can change characters before it."""
        name = self._tokenizer.convert_ids_to_tokens(token)
        if isinstance(name, str) and _BYTE.fullmatch(name):
            return None  # a byte may end a character, or make the bytes before it invalid
        alone, after = decode_ids(self._tokenizer, [token]), decode_ids(self._tokenizer, [*self._before, token])
        if UNFINISHED in alone + after or not after.startswith(self._before_text):
            return None
        return frozenset(alone + after[len(self._before_text) :])


_BYTE = re.compile("<0x[0-9A-F]{2}>")
_TEXTS: WeakKeyDictionary[Any, TokenTexts] = WeakKeyDictionary()


def token_texts(tokenizer: Any) -> TokenTexts:
    """The texts of a tokenizer's tokens, kept as long as the tokenizer."""
    if tokenizer not in _TEXTS:
        _TEXTS[tokenizer] = TokenTexts(tokenizer)
    return _TEXTS[tokenizer]


def decode_ids(tokenizer: Any, ids: Sequence[int]) -> str:
    """The text of tokens, without special ones."""
    text: str = tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text


class StopRule:
    """When a row ends, and with which text."""

    def __init__(self, tokenizer: Any, sampling: Sampling, end_ids: frozenset[int]) -> None:
        self._tokenizer, self._sampling, self._end_ids = tokenizer, sampling, end_ids
        self._last = frozenset(stop[-1] for stop in sampling.stop)
        self._texts = token_texts(tokenizer) if sampling.stop else None

    def ended_text(self, context: Sequence[int], ids: Sequence[int], dropped: str) -> tuple[str, bool] | None:
        """The row's text and whether it is finished if its last token ended it, else None.

        `context` are the tokens before the continuation `ids`, and `dropped` is removed from the start of the text. A
        stop string stays in the text; the token that ends the turn does not.
        """
        at_limit = len(ids) == self._sampling.max_new_tokens
        if ids[-1] in self._end_ids:
            return continuation_text(self._tokenizer, context, ids[:-1], dropped), True
        can_stop = self._texts is not None and self._texts.can_end(ids[-1], self._last)
        if not can_stop and not at_limit:
            return None
        text = continuation_text(self._tokenizer, context, ids, dropped)
        cuts = [text.index(stop) + len(stop) for stop in self._sampling.stop if stop in text]
        if cuts:
            return text[: min(cuts)], True
        return (text, False) if at_limit else None


def continuation_text(tokenizer: Any, context: Sequence[int], ids: Sequence[int], dropped: str) -> str:
    """The continuation as text, decoded with the tokens before it, whose text is then removed."""
    near = list(context[-LOOK_BACK:])
    before = decode_ids(tokenizer, near)
    return decode_ids(tokenizer, [*near, *ids])[len(before) :].removeprefix(dropped)
