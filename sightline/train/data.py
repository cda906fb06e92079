"""What a run is about: pairs, prompts, or both, read and joined, and the pairs held out for validation.

Nothing is checked against a model here; that is `admission`.
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
from sightline.train.config.source import OfflineConfig, OnlineBDHSConfig, streams_of
from sightline.train.pair_filter import resolve_images
from sightline.train.streams import StreamExample


@dataclass(frozen=True)
class Data:
    """The pairs and the samples of a run, image paths absolute; either may be empty, not both."""

    pairs: Sequence[Pair]
    samples: Sequence[Sample]


def read_data(pairs: Path | None, samples: Path | None, config: TrainConfig) -> Data:
    """Read what the run's source asks for; samples alone serve losses that learn from chosen answers alone.

    Raises:
        InputError: neither is given, or one that holds nothing; given pairs are asked for and there are none; BDHS
            without references; `read_pairs` or `read_samples` refuse a row.
    """
    streams = streams_of(config.source)
    if pairs is None and samples is not None and isinstance(config.source, OfflineConfig) and not config.compares:
        return Data([_taught(sample) for sample in _read_samples(samples, require_reference=True)], [])
    if pairs is None and (samples is None or any(isinstance(stream, OfflineConfig) for stream in streams)):
        raise InputError("there are no pairs to train on; name some with --pairs, or online prompts with --samples")
    if pairs is None and config.validation is not None:
        raise InputError("validation.share holds pairs out, and there are none; name some with --pairs")
    if pairs is None and any(isinstance(stream, OnlineBDHSConfig) and stream.average for stream in streams):
        raise InputError("source.average needs given pairs for the second rejected answer; name some with --pairs")
    given = [] if pairs is None else [resolve_images(pair, pairs) for pair in read_pairs(pairs)]
    if pairs is not None and not given:
        raise InputError(f"{pairs} holds no pairs; build some first.")
    needed = any(isinstance(stream, OnlineBDHSConfig) for stream in streams)
    return Data(given, [] if samples is None else _read_samples(samples, require_reference=needed))


def _taught(sample: Sample) -> Pair:
    """A reference as the chosen answer of a pair that has nothing to reject, for supervised tuning."""
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
    """The prompts of samples, or of pairs, for a run by rewards; errors as `read_samples`."""
    return Data([], _read_samples(place, require_reference=False))


def _read_samples(place: Path, *, require_reference: bool) -> list[Sample]:
    folder = samples_file(place).parent
    samples = [
        sample.model_copy(update={"images": tuple(str((folder / image).absolute()) for image in sample.images)})
        for sample in read_samples(place, require_reference=require_reference)
    ]
    if not samples:
        raise InputError(f"{place} holds no samples; make some first.")
    return samples


def examples_of(pairs: Sequence[Pair], samples: Sequence[Sample]) -> list[StreamExample]:
    """The pairs, each with what its sample knows (reference, truth), or without any pairs the samples alone.

    A pair belongs to the sample of its own id, or of the part before the builder's name (`sample-id/builder`). Without
    samples a pair's chosen answer is its reference.

    Raises:
        InputError: there are samples, and a pair's is not among them.
    """
    if not pairs:
        return [StreamExample(sample) for sample in samples]
    by_id = {sample.id: sample for sample in samples}
    return [StreamExample(_sample_of(pair, by_id), pair) for pair in pairs]


def _sample_of(pair: Pair, samples: dict[str, Sample]) -> Sample:
    """Under the pair's id: two pairs of one prompt are two examples."""
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
            f"the sample of pair {shorten(pair.id)} is not among the samples; give those that the pairs were built "
            "from, or leave --samples out"
        )
    return found.model_copy(update={"id": pair.id})


def held_out(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """The pairs to train on, and at least `share` of all that have no picture in common with them.

    Pairs with the same first picture, by its bytes, go together; those without one go by their cluster or id.

    Raises:
        InputError: too few different pictures to hold any out.
    """
    groups: dict[str, list[int]] = {}
    for place, pair in enumerate(pairs):
        key = hash_file(Path(pair.images[0])) if pair.images else pair.cluster or pair.id
        groups.setdefault(key, []).append(place)
    if len(groups) < 2:
        raise InputError("validation.share: all pairs are about one picture, so none can be held out; leave it out")
    keys, kept_out = sorted(groups), set[int]()
    for number in np.random.default_rng([seed, 3001]).permutation(len(keys))[: len(keys) - 1]:
        if len(kept_out) >= share * len(pairs):
            break
        kept_out |= set(groups[keys[number]])
    rest = [pair for place, pair in enumerate(pairs) if place not in kept_out]
    return rest, [pairs[place] for place in sorted(kept_out)]
