"""Filter of training pairs: unusable pairs are dropped with a reason before training, and nothing is truncated.

Every row is rendered and every image opened once, so a file that would stop the run in its last epoch stops it before
its first. No forward pass runs here; the remaining pairs go into a source (`sources`).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.vlm import VLM
from sightline.records.rows import Pair
from sightline.train.row_errors import locate_errors
from sightline.train.scoring import Scoring


def resolve_images(pair: Pair, directory: Path) -> Pair:
    """The pair with absolute image paths; its own are relative to `directory`."""
    return pair.model_copy(update={"images": tuple(str((directory / image).absolute()) for image in pair.images)})


@dataclass(frozen=True)
class FilteredPairs:
    """The pairs to train on, in order, their mean length in tokens (prefixes and all answers), and dropped counts."""

    pairs: list[Pair]
    mean_tokens: float
    dropped: dict[str, int]


def filter_pairs(
    pairs: Iterable[Pair],
    vlm: VLM,
    scoring: Scoring,
    *,
    max_length: int | None,
    seen: Callable[[], None],
    place: Path | None = None,
) -> FilteredPairs:
    """Check every pair; `seen` is called after each, and `place` is the pairs' location, for errors.

    Raises:
        InputError: an image that cannot be opened, or text that cannot be encoded (see `models.encoding`), with the
            pair's location.
    """
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    tokens = 0
    for pair in pairs:
        with locate_errors([pair], vlm, place):
            found = _tokens_or_reason(pair, vlm, scoring, max_length)
        if isinstance(found, int):
            kept.append(pair)
            tokens += found
        else:
            dropped[found] += 1
        seen()
    return FilteredPairs(kept, tokens / max(1, len(kept)), dict(dropped))


def _tokens_or_reason(pair: Pair, vlm: VLM, scoring: Scoring, max_length: int | None) -> int | str:
    """The tokens of prefixes and answers, or the reason to drop the pair."""
    if pair.chosen == pair.rejected:
        return "chosen equals rejected"  # its loss is log 2 for every model
    if (lack := scoring.drop_reason(pair)) is not None:
        return lack
    tokens, longest = 0, 0
    for group in scoring.groups(pair):
        prefix = encode_prefix(vlm, group.scored.prefix)
        try:
            lengths = [len(encode_answer(vlm, prefix, answer).ids) for answer in group.scored.answers]
        except RowTooLong:
            return "longer than the model's positions"
        tokens += sum(lengths) - (len(lengths) - 1) * len(prefix.ids)
        longest = max(longest, *lengths)
    return "longer than max_length" if max_length is not None and longest > max_length else tokens
