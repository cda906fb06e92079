"""Language prior: the share of pairs whose chosen answer a model finds likelier without the image.

A pair that the language prior already orders correctly teaches nothing about images.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sightline.check.findings import PRIOR, CheckConfig, CheckLine
from sightline.check.shortcuts import Bootstrap, mean_estimate, strength_verdict
from sightline.data.terminal import Progress
from sightline.errors import InputError
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.requests import Prefix, ScoreRequest
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM, evaluating
from sightline.records import IMAGE, Pair, Turn

DrawnPairs = Sequence[tuple[int, Pair]]


def measure_prior(
    vlm: VLM, drawn: DrawnPairs, config: CheckConfig, seed: int, progress: Progress | None = None
) -> tuple[list[CheckLine], dict[str, str]]:
    """Measure the share of pairs whose chosen answer is likelier without the image, the same per token, and the mean
    margin.

    Pairs that cannot be encoded without their image are unscored.
    """
    found: list[tuple[int, float, float]] = []
    with evaluating(vlm):
        for done, margins in _margins(vlm, drawn, config.batch_size):
            found += margins
            if progress is not None:
                progress(done, len(drawn))
    if not found:
        return [], {"language prior": f"none of {len(drawn)} pairs can be scored without pictures"}
    clusters, margin, per_token = zip(*found, strict=True)
    bootstrap = Bootstrap(clusters, config.resamples, seed)
    unscored = len(drawn) - len(found)
    lines = []
    for name, title, values, is_share in (
        ("share", "chosen likelier by text alone", np.array(margin) > 0, True),
        ("share per token", "the same, per token", np.array(per_token) > 0, True),
        ("margin", "its mean margin in nats", np.array(margin), False),
    ):
        estimate = mean_estimate(values.astype(np.float64), bootstrap, unscored, is_share=is_share)
        bound = estimate.ci95[0] if is_share and estimate.ci95 else 0.5
        line = CheckLine(
            check=f"{PRIOR}{name}", title=title, verdict=strength_verdict(bound, config), value=estimate, n=estimate.n
        )
        lines.append(line)
    return lines, {}


def _margins(vlm: VLM, drawn: DrawnPairs, batch_size: int) -> Iterator[tuple[int, list[tuple[int, float, float]]]]:
    """Yield (cluster, margin, margin of means per token) of the pairs that can be scored, batch by batch."""
    for start in range(0, len(drawn), batch_size):
        batch = drawn[start : start + batch_size]
        yield start + len(batch), list(_scored(vlm, batch))


def _scored(vlm: VLM, batch: DrawnPairs) -> Iterator[tuple[int, float, float]]:
    try:
        logps = answer_logps(vlm, [_without_pictures(pair) for _, pair in batch])
    except InputError:
        if len(batch) > 1:  # retry one by one: a pair that cannot be encoded must not drop its batch
            for single in batch:
                yield from _scored(vlm, [single])
        return
    sums, lengths = logps.sums().double().cpu(), logps.lengths().cpu()
    for (cluster, _), total, length in zip(batch, sums, lengths, strict=True):
        means = total / length
        yield cluster, float(total[0] - total[1]), float(means[0] - means[1])


def _without_pictures(pair: Pair) -> ScoreRequest:
    history = tuple(Turn(role=turn.role, text=_bare(turn.text)) for turn in pair.history)
    return ScoreRequest(Prefix((), _bare(pair.prompt), history), (pair.chosen, pair.rejected))


def _bare(text: str) -> str:
    """Remove image placeholders and the line breaks beside them."""
    return text.replace(f"{IMAGE}\n", "").replace(f"\n{IMAGE}", "").replace(IMAGE, "").strip() or text


_AROUND = 32  # upper bound on the tokens that a chat template adds per turn
Sizes = tuple[tuple[int, int], ...]
#: What, besides its words, decides a row's chat template and the number of its image tokens.
_Form = tuple[Sizes, tuple[str, ...], tuple[str, ...]]


class FitCheck:
    """Checks whether the model can encode a pair; remembers prefix lengths to skip most encodings."""

    def __init__(self, vlm: VLM) -> None:
        self._vlm = vlm
        self._taken: dict[_Form, int] = {}
        special = {str(t) for t in vlm.tokenizer.added_tokens_decoder.values() if t.special}
        names = sorted({*vlm.tokenizer.all_special_tokens, *special} - {IMAGE})
        self._special = re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def problem(self, pair: Pair, sizes: Sizes, paths: Callable[[], tuple[Path, ...]]) -> tuple[str, str] | None:
        """Return (check, reason), or None if the pair fits; `paths` gives the images' files if they are needed."""
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
        """Whether the row fits by its byte length, and holds nothing that an encoder is known to refuse."""
        taken = self._taken.get(_form(pair, sizes))
        answers = _answers(pair)
        texts = [*(turn.text for turn in pair.history), pair.prompt, *answers]
        if taken is None or any(self._special.search(text) for text in texts) or any(a != a.strip() for a in answers):
            return False
        longest_prompt = sum(map(_most_tokens, texts[: -len(answers)])) + _AROUND * (len(pair.history) + 2)
        return taken + longest_prompt + max(map(_most_tokens, answers)) <= self._vlm.max_tokens


def _form(pair: Pair, sizes: Sizes) -> _Form:
    return sizes, tuple(turn.role for turn in pair.history), pair.media


def _answers(pair: Pair) -> list[str]:
    return [pair.chosen, pair.rejected, *([pair.second_rejected] if pair.second_rejected else [])]


def _most_tokens(text: str) -> int:
    """Bound the number of tokens: bytes of the text, also after the NFKC normalization of some tokenizers."""
    if text.isascii():
        return len(text)
    return max(len(form.encode()) for form in (text, unicodedata.normalize("NFKC", text)))
