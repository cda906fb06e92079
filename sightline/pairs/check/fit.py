"""Whether rows fit a model: not longer than its positions, and nothing in them that its encoder refuses.

The encoder is the judge (`models.encoding`, which training asks too). Most rows need not go to it: a text has no more
tokens than bytes, and how many tokens pictures take depends on their sizes alone, so a row whose bytes fit fits.
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from sightline.errors import InputError
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.prompts import Prefix
from sightline.models.vlm import VLM
from sightline.records import IMAGE, Pair

_AROUND = 32  # tokens that a chat template puts around a turn, at most
Sizes = tuple[tuple[int, int], ...]
#: What decides how a chat template treats a row, beside its words, and how many tokens its pictures take.
_Form = tuple[Sizes, tuple[str, ...], tuple[str, ...]]


class Fitting:
    """Says of pairs what the model has against them."""

    def __init__(self, vlm: VLM) -> None:
        self._vlm = vlm
        self._taken: dict[_Form, int] = {}
        special = {str(t) for t in vlm.tokenizer.added_tokens_decoder.values() if t.special}
        names = sorted({*vlm.tokenizer.all_special_tokens, *special} - {IMAGE})
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def problem(self, pair: Pair, sizes: Sizes, paths: Callable[[], tuple[Path, ...]]) -> tuple[str, str] | None:
        """The check and the reason, or None; `paths` gives the images' files where they are needed."""
        if self._surely_fits(pair, sizes):
            return None
        try:
            prefix = encode_prefix(self._vlm, Prefix(paths(), pair.prompt, pair.history, pair.media))
            for answer in _answers(pair):
                encode_answer(self._vlm, prefix, answer)
        except RowTooLong as error:
            return "too-long", str(error)
        except InputError as error:
            return "refused", str(error)
        self._taken.setdefault(_form(pair, sizes), len(prefix.ids))
        return None

    def _surely_fits(self, pair: Pair, sizes: Sizes) -> bool:
        """Whether the row fits by its bytes, and holds nothing that an encoder is known to refuse."""
        taken = self._taken.get(_form(pair, sizes))
        answers = _answers(pair)
        texts = [*(turn.text for turn in pair.history), pair.prompt, *answers]
        if taken is None or any(self._special.search(text) for text in texts) or any(a != a.strip() for a in answers):
            return False
        asked = sum(map(_most_tokens, texts[: -len(answers)])) + _AROUND * (len(pair.history) + 2)
        return taken + asked + max(map(_most_tokens, answers)) <= self._vlm.max_tokens


def _form(pair: Pair, sizes: Sizes) -> _Form:
    return sizes, tuple(turn.role for turn in pair.history), pair.media


def _answers(pair: Pair) -> list[str]:
    return [pair.chosen, pair.rejected, *([pair.second_rejected] if pair.second_rejected else [])]


def _most_tokens(text: str) -> int:
    """A bound on the tokens of a text: its bytes, also after the normalization that some tokenizers begin with."""
    if text.isascii():
        return len(text)
    return max(len(form.encode()) for form in (text, unicodedata.normalize("NFKC", text)))
