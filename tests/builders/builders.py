"""Checks for any builder: rows are independent, and an interrupted run resumes to the same dataset."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sightline.builders.build import BUILT, BuildPlan, build_dataset
from sightline.builders.builder import Builder, BuildResult
from sightline.config import Config
from sightline.models.context import RunContext
from sightline.models.vlm import VLM
from sightline.records import Manifest, Sample, read_manifest, read_rows

Build = Callable[[Iterable[Sample], RunContext, Any], Iterator[BuildResult]]


def build_results(
    build: Build, samples: Iterable[Sample], context: RunContext, config: Config, **changes: object
) -> dict[str, BuildResult]:
    """What a builder makes of each sample, in the order in which it does, with some settings changed."""
    return {result.sample_id: result for result in build(samples, context, config.model_copy(update=changes))}


def assert_rows_stand_alone(build: Build, samples: Sequence[Sample], context: RunContext, config: Config) -> None:
    """Neither batches nor waves nor neighbors nor the order decide a row; the seed does."""
    together = build_results(build, samples, context, config)
    assert list(together) == [sample.id for sample in samples]
    assert together == build_results(build, samples, context, config, batch_size=1, wave=1)
    assert together == build_results(build, samples[::-1], context, config, batch_size=5, wave=2)
    (single,) = build_results(build, samples[1:2], context, config).values()
    assert single == together[samples[1].id]
    other = RunContext(context.folder, context.scratch, context.seed + 1, context.policy)
    assert build_results(build, samples, other, config) != together


def assert_goes_on(builder: Builder[Any], config: Config, model: Path, samples: Path, out: Path) -> Manifest:
    """Stopped after two samples and started again, it gives what an uninterrupted run gives; the manifest of that."""

    class Interrupted(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Interrupted

    whole = build_dataset(BuildPlan(builder, config), model, samples, out / "whole")
    with pytest.raises(Interrupted):
        build_dataset(BuildPlan(builder, config), model, samples, out / "stopped", stop)
    assert len(list(read_rows(out / "stopped" / BUILT, BuildResult))) == 2
    again = build_dataset(BuildPlan(builder, config), model, samples, out / "stopped")
    assert (out / "stopped/pairs.jsonl").read_bytes() == (out / "whole/pairs.jsonl").read_bytes()
    assert (again.counts, again.dropped, again.key) == (whole.counts, whole.dropped, whole.key)
    assert {k: v for k, v in again.numbers.items() if k != "cache_hit_rate"} == numbers_of(whole)
    return read_manifest(out / "whole")


def numbers_of(manifest: Manifest) -> dict[str, float]:
    """All but how often the cache had it, which an earlier run decides."""
    return {name: value for name, value in manifest.numbers.items() if name != "cache_hit_rate"}


def make_context(folder: Path, scratch: Path, vlm: VLM, seed: int = 0) -> RunContext:
    return RunContext(folder, scratch / "views", seed, vlm)
