"""Input data of a run: pairs, prompts or both, read and joined, and the pairs held out for validation.

Nothing is checked against a model here; see `pair_filter`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.config.problems import shorten
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import read_samples, samples_file
from sightline.errors import InputError
from sightline.records.hashing import hash_file
from sightline.records.rows import Pair, Sample
from sightline.train.config import TrainConfig
from sightline.train.config.source import OfflineConfig, OnlineBDHSConfig, list_streams
from sightline.train.pair_filter import resolve_images
from sightline.train.streams import StreamExample


@dataclass(frozen=True)
class Data:
    """The pairs and the samples of a run, with absolute image paths; one of the two may be empty."""

    pairs: Sequence[Pair]
    samples: Sequence[Sample]


def read_data(pairs: Path | None, samples: Path | None, config: TrainConfig) -> Data:
    """Read the data that the run's source needs; samples are enough for losses that use chosen answers only.

    Raises:
        InputError: neither pairs nor samples are given, or the given ones are empty; the source needs given pairs; BDHS
            without references; `read_pairs` or `read_samples` rejects a row.
    """
    streams = list_streams(config.source)
    if pairs is None and samples is not None and isinstance(config.source, OfflineConfig) and not config.compares:
        return Data([_reference_pair(sample) for sample in _read_samples(samples, require_reference=True)], [])
    if pairs is None and (samples is None or any(isinstance(stream, OfflineConfig) for stream in streams)):
        raise InputError("no pairs to train on; give them with --pairs, or prompts for online training with --samples")
    if pairs is None and config.validation is not None:
        raise InputError("validation.share holds out pairs, and no pairs were given; give them with --pairs")
    if pairs is None and any(isinstance(stream, OnlineBDHSConfig) and stream.average for stream in streams):
        raise InputError("source.average takes the second rejected answer from given pairs; give them with --pairs")
    given = [] if pairs is None else [resolve_images(pair, pairs) for pair in read_pairs(pairs)]
    if pairs is not None and not given:
        raise InputError(f"{pairs} holds no pairs; build some first.")
    needed = any(isinstance(stream, OnlineBDHSConfig) for stream in streams)
    return Data(given, [] if samples is None else _read_samples(samples, require_reference=needed))


def _reference_pair(sample: Sample) -> Pair:
    """A pair for supervised tuning: the reference is the chosen answer, and nothing is rejected."""
    return Pair(
        id=sample.id,
        images=sample.images,
        media=sample.media,
        history=sample.history,
        prompt=sample.prompt,
        chosen=(sample.reference or "").strip(),
        rejected="",
        builder="reference",
        cluster=sample.cluster,
    )


def read_prompts(place: Path) -> Data:
    """Read the prompts of samples or pairs for training by rewards; errors as in `read_samples`."""
    return Data([], _read_samples(place, require_reference=False))


def _read_samples(place: Path, *, require_reference: bool) -> list[Sample]:
    folder = samples_file(place).parent
    samples = [
        sample.model_copy(update={"images": tuple(str((folder / image).absolute()) for image in sample.images)})
        for sample in read_samples(place, require_reference=require_reference)
    ]
    if not samples:
        raise InputError(f"{place} holds no samples; create some first.")
    return samples


def make_examples(pairs: Sequence[Pair], samples: Sequence[Sample]) -> list[StreamExample]:
    """Join each pair with its sample (reference, truth); without pairs, the examples are the samples.

    A pair belongs to the sample with its own id, or with the part before the builder's name (`sample-id/builder`).
    Without samples, a pair's chosen answer serves as the reference.

    Raises:
        InputError: samples are given and a pair's sample is missing.
    """
    if not pairs:
        return [StreamExample(sample) for sample in samples]
    by_id = {sample.id: sample for sample in samples}
    return [StreamExample(_find_sample(pair, by_id), pair) for pair in pairs]


def _find_sample(pair: Pair, samples: dict[str, Sample]) -> Sample:
    """The sample under the pair's id: two pairs of one prompt are two examples."""
    if not samples:
        return Sample(
            id=pair.id,
            images=pair.images,
            media=pair.media,
            history=pair.history,
            prompt=pair.prompt,
            reference=pair.chosen,
            task=str(pair.provenance.get("task", "")),
            cluster=pair.cluster,
        )
    found = samples.get(pair.id) or samples.get(pair.id.rpartition("/")[0])
    if found is None:
        raise InputError(
            f"the sample of pair {shorten(pair.id)} is missing from --samples; give the samples that the pairs "
            "were built from, or omit --samples"
        )
    return found.model_copy(update={"id": pair.id})


def hold_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into training pairs and at least `share` of all, such that no image is in both parts.

    Pairs with the same first image (by its bytes) stay together; pairs without images are grouped by cluster or id.

    Raises:
        InputError: too few different images to hold any out.
    """
    groups: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        key = hash_file(Path(pair.images[0])) if pair.images else pair.cluster or pair.id
        groups.setdefault(key, []).append(place)
    if len(groups) < 2:
        raise InputError("validation.share: all pairs share one image, so none can be held out; remove it")
    keys, kept_out = sorted(groups), set[int]()
    for number in np.random.default_rng([seed, 3001]).permutation(len(keys))[: len(keys) - 1]:
        if len(kept_out) >= share * len(pairs):
            break
        kept_out |= set(groups[keys[number]])
    rest = [pair for place, pair in enumerate(pairs) if place not in kept_out]
    return rest, [pairs[place] for place in sorted(kept_out)]
