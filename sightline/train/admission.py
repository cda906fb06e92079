"""Which pairs are trained on: the others are dropped at the door, each with its reason, and nothing is ever cut to fit.

Every row is rendered and every image opened once, so a file that would stop the run in its last epoch stops it before
its first. No forward pass runs here; the admitted pairs go into a source (`sources`).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix
from sightline.models.loading import VLM
from sightline.records.rows import Pair
from sightline.train.reference import to_scored


def resolve_images(pair: Pair, directory: Path) -> Pair:
    """The pair with absolute image paths, those it has being relative to `directory`."""
    return pair.model_copy(update={"images": tuple(str((directory / image).absolute()) for image in pair.images)})


def admit(
    pairs: Iterable[Pair], vlm: VLM, *, max_length: int | None, seen: Callable[[], None]
) -> tuple[list[Pair], dict[str, int]]:
    """The pairs to train on, in order, and the number of those dropped by reason; `seen` is called after each.

    Raises:
        InputError: an image that cannot be opened, or text that cannot be encoded, as `models.encoding` says.
    """
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    for pair in pairs:
        reason = _reason_to_drop(pair, vlm, max_length)
        if reason is None:
            kept.append(pair)
        else:
            dropped[reason] += 1
        seen()
    return kept, dict(dropped)


def _reason_to_drop(pair: Pair, vlm: VLM, max_length: int | None) -> str | None:
    if pair.chosen == pair.rejected:
        return "chosen equals rejected"  # its loss is log 2 whatever the model does
    scored = to_scored(pair)
    prefix = encode_prefix(vlm, scored.prefix)
    try:
        longest = max(len(encode_answer(vlm, prefix, answer).ids) for answer in scored.answers)
    except RowTooLong:
        return "longer than the model's positions"
    if max_length is not None and longest > max_length:
        return "longer than max_length"
    return None
