"""Filter of training pairs: unusable pairs are dropped with a reason before training, and nothing is truncated.

Every row is rendered and every image opened once, so a file that would stop the run in its last epoch stops it before
its first. No forward pass runs here; the remaining pairs go into a source (`sources`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sightline.config.problems import brief, shorten
from sightline.data.preference_dataset import PAIRS
from sightline.data.samples import row_place, samples_file
from sightline.errors import InputError
from sightline.models.encoding import RowTooLong, encode_answer, encode_prefix, look_ahead
from sightline.models.requests import make_prefix
from sightline.models.vlm import VLM
from sightline.records.rows import Pair, Sample
from sightline.train.scoring import Scoring


@contextmanager
def locate_errors(
    rows: Sequence[Pair | Sample], vlm: VLM, place: Path | None = None, folder: Path | None = None
) -> Iterator[None]:
    """Prefix an encoding error with its row: the only one of `rows`, or the first whose prompt or image is rejected.

    `place` is the directory or file of the rows, `folder` that of their images if their paths are relative.

    Raises:
        InputError: raised in the body, with the row's location.
    """
    try:
        yield
    except RowTooLong:
        raise
    except InputError as error:
        one = rows[0] if len(rows) == 1 else next((row for row in rows if _is_rejected(row, vlm, folder)), None)
        if one is None:
            raise
        checked = place is not None and samples_file(place).name == PAIRS  # `sightline check` accepts pairs only
        remedy = f"; `sightline check {place} --model {vlm.path}` finds all such rows" if checked else ""
        raise InputError(f"{_describe(one, place)}: {error}{remedy}") from error


def _is_rejected(row: Pair | Sample, vlm: VLM, folder: Path | None) -> bool:
    try:
        encode_prefix(vlm, make_prefix(row, folder or Path()))
    except InputError:
        return True
    return False


def _describe(row: Pair | Sample, place: Path | None) -> str:
    kind = "pair" if isinstance(row, Pair) else "sample"
    found = f"{kind} {shorten(row.id)}" if place is None else f"{row_place(place, row.id)} (id {shorten(row.id)}"
    pictures = ", ".join(_relative(name, place) for name in row.images)
    shown = f"picture {brief(pictures)}" if len(row.images) == 1 else f"pictures {brief(pictures)}"
    if place is None:
        return f"{found} ({shown})" if row.images else found
    return f"{found}, {shown})" if row.images else f"{found})"


def _relative(name: str, place: Path | None) -> str:
    """An image's path as the row gives it."""
    if place is None:
        return name
    folder = (place if place.is_dir() else place.parent).absolute()
    return str(Path(name).relative_to(folder)) if Path(name).is_relative_to(folder) else name


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
    for pair in look_ahead(vlm, pairs, lambda pair: make_prefix(pair, Path())):
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
