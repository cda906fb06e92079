"""A proof that a model is computed right, made when it is opened, and the choice of its way.

The log-probs of a few rows about noise pictures are computed by the model's own forward before anything is registered
with Transformers, by two implementations of attention: their mean difference is the noise of this machine and number
format. The first way whose log-probs agree within three times the noise is taken. Rows with hidden image tokens must
agree with the model's own forward in which they are masked or left out.
"""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from sightline.models.attention import use_layouts
from sightline.models.head import find_head
from sightline.models.packing import PackRow
from sightline.models.recording import has_states
from sightline.models.unbatched import unbatched_inputs, unbatched_logps
from sightline.models.vlm import VLM, decoder_of
from sightline.models.ways.base import Way
from sightline.models.ways.cached import CachedWay
from sightline.models.ways.limited import LimitedWay, length_limit
from sightline.models.ways.packed import PackedWay
from sightline.models.ways.recorded import RecordedWay, recorded_way
from sightline.models.ways.row_by_row import RowByRowWay

log = logging.getLogger(__name__)
WAYS: dict[str, Callable[..., Any]] = {
    "packed": PackedWay,
    "recorded": RecordedWay,
    "cached": CachedWay,
    "row by row": RowByRowWay,
}
#: Multiples of the noise, and nats, that a way may be off in the mean.
NOISES, FLOOR = 3.0, 1e-5


@dataclass(frozen=True)
class ProofRows:
    """Two rows with two answers each, and the first with a gray picture, which is None for a text-only model."""

    rows: tuple[PackRow, ...]
    gray: PackRow | None


@dataclass(frozen=True)
class Proof:
    """What was measured (nats a token, in the mean), and the way that follows: the fields of its dataclass.

    `difference` is that of the way from the model's own forward, `hidden` the same with half of the image tokens
    hidden, `image` what a gray picture changes; `rejected` says what the ways before it were off by or raised.
    `reference` is how the model's own forward hides image tokens.
    """

    way: dict[str, Any]
    limit: int | None
    reference: str | None
    noise: float
    difference: float
    hidden: float | None = None
    image: float | None = None
    rejected: dict[str, str] = field(default_factory=dict)

    def open(self, base: Any) -> Way:
        """The way, with its attention registered if it has one."""
        way: Way = WAYS[self.way["name"]](**self.way)
        if not isinstance(way, PackedWay):
            return way
        use_layouts(base)
        if self.limit is None:
            return way
        return LimitedWay(way, RowByRowWay(hiding=self.reference), self.limit)

    def numbers(self) -> dict[str, float | None]:
        """The evidence for manifests: mean differences in nats a token."""
        return {"noise": self.noise, "difference": self.difference, "hidden_difference": self.hidden}

    def sentence(self) -> str:
        """The evidence in words."""
        off = "; ".join(f"{name} {why}" for name, why in self.rejected.items())
        hidden = "" if self.hidden is None else f", with hidden image tokens to {self.hidden:.1g}"
        return f"{self.way['name']} (log-probs agree to {self.difference:.1g} nats{hidden}; noise {self.noise:.1g})" + (
            f"; rejected: {off}" if off else ""
        )


class NotProved(Exception):
    """Raised where a model's own log-probs cannot be compared."""


@dataclass(frozen=True)
class _Measure:
    """Log-probs by the model's own forward, and the difference (nats) that a way may have in the mean."""

    rows: tuple[PackRow, ...]
    logps: Tensor
    hiding: str | None
    hidden_rows: list[PackRow]
    hidden_logps: Tensor | None
    noise: float

    @property
    def tolerance(self) -> float:
        """The largest mean difference of a way that is right."""
        return NOISES * self.noise + FLOOR


@torch.no_grad()
def prove(vlm: VLM, samples: ProofRows) -> Proof:
    """Choose the way of a model of any type whose attention is still Transformers' own; its weights are not changed.

    Raises:
        NotProved: the model's own log-probs are not numbers.
    """
    original, rejected = vlm.base.config._attn_implementation, dict[str, str]()
    with _attention(vlm.base, "sdpa"):
        measure = _measured(vlm, samples.rows, _noise(vlm, samples.rows[:1]), _hiding(vlm, samples))
        image = _mean(measure.logps[: len(samples.rows[0].answers[0])], _of_gray(vlm, samples))
    for name, make in _candidates(vlm, samples, measure.hiding):
        difference, hidden, way = _try(vlm, measure, name, make, rejected)
        if way is not None:
            limit = length_limit(vlm.base) if isinstance(way, PackedWay) else None
            limit = None if limit is not None and _longest(samples.rows) > limit else limit
            return Proof(asdict(way), limit, measure.hiding, measure.noise, difference, hidden, image, rejected)
        vlm.base.set_attn_implementation(original)
    alone = RowByRowWay(hiding=measure.hiding)
    return Proof(asdict(alone), None, measure.hiding, measure.noise, 0.0, None, image, rejected)


@torch.no_grad()
def prove_listed(vlm: VLM, row: PackRow) -> Proof | None:
    """A proof of a listed family's adapter from one row, which the tests prove further; None if it is off.

    Raises:
        NotProved: the model's own log-probs are not numbers.
    """
    count = row.prefix.ids.count(vlm.image_token_id)
    first = replace(row, answers=row.answers[:1])
    how = "left out" if has_states(vlm.base) else "masked"
    hidden = [replace(first, hidden=frozenset(range(0, count, 2)))] if count else []
    noise = _least_noise(vlm)
    with _attention(vlm.base, "sdpa"):
        if noise > FLOOR:
            noise = _noise(vlm, [first])
        measure = _measured(
            vlm, (row,), noise, (how, hidden, unbatched_logps(vlm, hidden, how)) if hidden else (None, [], None)
        )
    original, rejected = vlm.base.config._attn_implementation, dict[str, str]()
    difference, off, way = _try(vlm, measure, "packed", PackedWay, rejected)
    if way is None:
        vlm.base.set_attn_implementation(original)
        log.warning("%s: the adapter of its family %s", vlm.path, rejected["packed"])
        return None
    limit = length_limit(vlm.base, listed=True)
    return Proof(asdict(way), limit, measure.hiding, noise, difference, off)


def _measured(
    vlm: VLM, rows: tuple[PackRow, ...], noise: float, hiding: tuple[str | None, list[PackRow], Tensor | None]
) -> _Measure:
    logps = unbatched_logps(vlm, rows)
    if not logps.isfinite().all():
        raise NotProved("its log-probs are NaN or infinite")
    return _Measure(rows, logps, hiding[0], hiding[1], hiding[2], noise)


def _noise(vlm: VLM, rows: Sequence[PackRow]) -> float:
    """The mean difference of log-probs between two implementations of attention, at least the format's epsilon."""
    least = _least_noise(vlm)
    here = unbatched_logps(vlm, rows)
    try:
        with _attention(vlm.base, "eager"):
            return max(least, _mean(here, unbatched_logps(vlm, rows)) or 0.0)
    except Exception as error:  # noqa: BLE001 - foreign forwards raise anything; the format's epsilon is left
        log.debug("%s: eager attention: %s", vlm.path, error)
        return least


def _least_noise(vlm: VLM) -> float:
    """The epsilon of the number format; quantized weights are multiplied in bfloat16."""
    quantized = getattr(vlm.base.config, "quantization_config", None) is not None
    return float(torch.finfo(torch.bfloat16 if quantized else vlm.dtype).eps)


def _try(
    vlm: VLM, measure: _Measure, name: str, make: Callable[[], Any], rejected: dict[str, str]
) -> tuple[float, float | None, Any]:
    """How far a way is off, also with hidden tokens, and the way if it is right; else why not, into `rejected`."""
    try:
        way = make()
        if isinstance(way, PackedWay):
            use_layouts(vlm.base)
        tried, hidden = replace(vlm, way=way), None
        difference = _mean(measure.logps, way.scores(tried, measure.rows).logps)
        if measure.hidden_logps is not None and way.hiding is not None:
            hidden = _mean(measure.hidden_logps, way.scores(tried, measure.hidden_rows).logps)
    except Exception as error:
        rejected[name] = f"raises {type(error).__name__}"
        log.debug("%s: %s: %s", vlm.path, name, error, exc_info=True)
        return 0.0, None, None
    worst = max(difference or 0.0, hidden or 0.0)
    if difference is not None and worst <= measure.tolerance:
        return difference, hidden, way
    rejected[name] = f"is off by {worst:.2g} nats"
    return worst, hidden, None


def _candidates(vlm: VLM, samples: ProofRows, hiding: str | None) -> Iterator[tuple[str, Callable[[], Any]]]:
    def recorded() -> RecordedWay:
        way = recorded_way(vlm, samples.rows[0].prefix)
        return replace(way, head=_head(vlm, samples), hiding="left out" if hiding else None)

    yield "recorded", recorded
    yield "cached", lambda: CachedWay(hiding=hiding)


def _head(vlm: VLM, samples: ProofRows) -> str:
    """How logits follow from the decoder's hidden states."""
    states: list[Tensor] = []
    handle = decoder_of(vlm.base).register_forward_hook(lambda _, __, output: states.append(output[0]))
    try:
        logits = vlm.model(**unbatched_inputs(vlm, samples.rows[0].prefix, ()), use_cache=False).logits
    finally:
        handle.remove()
    return find_head(vlm, states[-1][0], logits[0])


def _hiding(vlm: VLM, samples: ProofRows) -> tuple[str | None, list[PackRow], Tensor | None]:
    """How the model's own forward hides image tokens, a row with half of them hidden, and its log-probs.

    With all image tokens hidden, a noise picture and a gray one must give the same log-probs.
    """
    row, gray = samples.rows[0], samples.gray
    count = row.prefix.ids.count(vlm.image_token_id) if vlm.is_multimodal else 0
    if gray is None or not count or gray.prefix.ids != row.prefix.ids:
        return None, [], None
    first, everything = row.answers[:1], frozenset(range(count))
    half = replace(row, answers=first, hidden=frozenset(range(0, count, 2)))
    ways = ("left out",) if has_states(vlm.base) else ("masked", "left out")
    for how in ways:
        try:
            seen, other = (
                unbatched_logps(vlm, [replace(one, answers=first, hidden=everything)], how) for one in (row, gray)
            )
            hidden = unbatched_logps(vlm, [half], how)
        except Exception as error:
            log.debug("%s: hiding: %s", vlm.path, error, exc_info=True)
            continue
        leak = _mean(seen, other)
        if leak is not None and leak <= NOISES * _least_noise(vlm) + FLOOR:
            return how, [half], hidden
    return None, [], None


def _longest(rows: Sequence[PackRow]) -> int:
    """The length of the longest row with its answer; a proof with rows beyond a limit shows that there is none."""
    return max(len(row.prefix.ids) + max(map(len, row.answers)) for row in rows)


def _of_gray(vlm: VLM, samples: ProofRows) -> Tensor | None:
    if samples.gray is None:
        return None
    return unbatched_logps(vlm, [replace(samples.gray, answers=samples.gray.answers[:1])])


def _mean(one: Tensor, other: Tensor | None) -> float | None:
    """The mean difference (nats); None for numbers that cannot be compared."""
    if other is None or one.shape != other.shape:
        return None
    difference = float((one - other).abs().mean())
    return difference if difference == difference else None


@contextlib.contextmanager
def _attention(base: Any, name: str) -> Iterator[None]:
    """Context with another implementation of attention, or with the model's own if it does not have that one."""
    before = base.config._attn_implementation
    with contextlib.suppress(ValueError, ImportError, NotImplementedError):
        base.set_attn_implementation(name)
    try:
        yield
    finally:
        if base.config._attn_implementation != before:
            base.set_attn_implementation(before)
