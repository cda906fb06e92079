"""How much a model prefers the chosen answers without looking: log-probs of both answers given the text alone.

Where the language prior has the preference already, a pair teaches nothing about pictures.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from sightline.data.progress import Progress
from sightline.errors import InputError
from sightline.models.prompts import Prefix, Scored
from sightline.models.scorer import answer_logps
from sightline.models.vlm import VLM, evaluating
from sightline.pairs.check.config import CheckConfig
from sightline.pairs.check.findings import PRIOR, Line
from sightline.pairs.check.giveaways import verdict_of
from sightline.pairs.check.intervals import Bootstrap, mean_estimate
from sightline.records import IMAGE, Pair, Turn

Drawn = Sequence[tuple[int, Pair]]


def measure_prior(
    vlm: VLM, drawn: Drawn, config: CheckConfig, seed: int, progress: Progress | None = None
) -> tuple[list[Line], dict[str, str]]:
    """The share of pairs whose chosen answer is likelier without the picture, the same per token, and the mean margin.

    Pairs that cannot be encoded without their picture are unscored.
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
        sure = estimate.ci95[0] if is_share and estimate.ci95 else 0.5
        line = Line(
            check=f"{PRIOR}{name}",
            title=title,
            verdict=verdict_of(sure, config),
            value=estimate,
            n=estimate.n,
        )
        lines.append(line)
    return lines, {}


def _margins(vlm: VLM, drawn: Drawn, batch_size: int) -> Iterator[tuple[int, list[tuple[int, float, float]]]]:
    """(cluster, margin, margin of means per token) of the pairs that can be scored, batch by batch."""
    for start in range(0, len(drawn), batch_size):
        batch = drawn[start : start + batch_size]
        yield start + len(batch), list(_scored(vlm, batch))


def _scored(vlm: VLM, batch: Drawn) -> Iterator[tuple[int, float, float]]:
    try:
        logps = answer_logps(vlm, [_without_pictures(pair) for _, pair in batch])
    except InputError:
        if len(batch) > 1:  # one that cannot be encoded must not take its neighbors along
            for single in batch:
                yield from _scored(vlm, [single])
        return
    sums, lengths = logps.sums().double().cpu(), logps.lengths().cpu()
    for (cluster, _), total, length in zip(batch, sums, lengths, strict=True):
        means = total / length
        yield cluster, float(total[0] - total[1]), float(means[0] - means[1])


def _without_pictures(pair: Pair) -> Scored:
    history = tuple(Turn(role=turn.role, text=_bare(turn.text)) for turn in pair.history)
    return Scored(Prefix((), _bare(pair.prompt), history), (pair.chosen, pair.rejected))


def _bare(text: str) -> str:
    """The text without the places of images and the line breaks beside them."""
    return text.replace(f"{IMAGE}\n", "").replace(f"\n{IMAGE}", "").replace(IMAGE, "").strip() or text
