"""Every builder of the registry: rows are independent, a stopped run resumes, and all samples are counted.

The builders run with their configs in `sightline/lab/configs`, made small, on the lab's base and scenes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sightline.lab
from sightline.builders.build import BUILT, dropped_reason
from sightline.builders.builder import Builder, BuildResult
from sightline.builders.registry import BUILDERS, get_builder
from sightline.config import Config, load_config
from sightline.data.preference_dataset import read_pairs
from sightline.data.samples import read_samples
from sightline.lab import BASE
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.vlm import VLM
from sightline.records import Manifest, Sample, hash_json, read_manifest, read_rows
from tests.builders.builders import assert_goes_on

CONFIGS = Path(sightline.lab.__file__).parent / "configs"
DESCRIBED: dict[str, Any] = {"described": 1.0, "captioned": 0.0}
LAB_QUESTIONS: dict[str, Any] = {"described": 0.0, "captioned": 0.0}
GRADED: dict[str, Any] = {"instructions": {"bad_questions": 0.4, "bad_answers": 0.5, "questions": 2, "answers": 2}}


@dataclass(frozen=True)
class Case:
    """How a builder is tried: what its config has in place of the lab's values, and on what scenes."""

    changes: tuple[str, ...] = ()
    scenes: Mapping[str, Any] | None = None
    draws: bool = True  # whether the seed decides anything


SHORT = ("autocast=false", "max_new_tokens=12")
#: Every builder; the limits are such that some rows are dropped where a builder can drop any.
CASES: dict[str, Case] = {
    "bdhs": Case((*SHORT, "tries=2")),
    "corrupted": Case(),
    "claims": Case((*SHORT, "answers=3", "unfinished=true")),
    "altered": Case(),
    "corrected": Case(("autocast=false", "max_new_tokens=40")),
    "beam": Case((*SHORT, "judge.name=oracle", "beams=1", "branches=2", "sentences=2")),
    "correctness": Case((*SHORT, "samples=6", "pairs=3"), LAB_QUESTIONS),
    "dropout-ntp": Case((*SHORT, "unfinished=true")),
    "ranked": Case((*SHORT, "answers=3", "unfinished=true")),
    "conditioned": Case(),
    "graded": Case(("augment=0",), GRADED, draws=False),
    "weakened": Case(SHORT),
    "distorted": Case(("autocast=false",)),
}
every_builder = pytest.mark.parametrize("name", list(BUILDERS))


@pytest.fixture(scope="module")
def base() -> VLM:
    return load_vlm(BASE)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five scenes for every kind of samples that a builder needs."""
    root, found = tmp_path_factory.mktemp("scenes"), {}
    for name, case in CASES.items():
        scenes = ScenesConfig.model_validate(case.scenes or DESCRIBED)
        found[name] = write_scenes(scenes, "validation", 5, root / hash_json(scenes.model_dump())[:8])
    return found


def opened(name: str) -> tuple[Builder[Any], Config]:
    builder = get_builder(name)
    return builder, load_config(builder.config, CONFIGS / f"{name}.yaml", list(CASES[name].changes))


def rows_of(name: str, folder: Path) -> list[Sample]:
    """What the stage gives to the builder: gathered where it asks for that."""
    gather, samples = get_builder(name).gather, read_samples(folder)
    return list(samples if gather is None else gather(samples))


def test_every_builder_of_the_registry_has_a_case() -> None:
    assert set(CASES) == set(BUILDERS)
    for name in BUILDERS:
        assert get_builder(name).name == name and BUILDERS[name].needs_model == get_builder(name).needs_model


@every_builder
def test_rows_stand_alone(name: str, folders: dict[str, Path], base: VLM, tmp_path: Path) -> None:
    """What is made of a sample does not depend on the others, on their order, or on how many are worked on together."""
    builder, config = opened(name)
    samples = rows_of(name, folders[name])
    context = RunContext(folders[name], tmp_path / "views", 0, base if builder.needs_model else None)

    def build_results(
        rows: Iterable[Sample], context: RunContext = context, **changes: object
    ) -> dict[str, BuildResult]:
        known = {key: value for key, value in changes.items() if key in builder.config.model_fields}
        return {result.sample_id: result for result in builder.build(rows, context, config.model_copy(update=known))}

    together = build_results(samples)
    assert list(together) == [sample.id for sample in samples]
    assert any(result.pairs for result in together.values())
    before = [sample.model_copy(deep=True) for sample in samples]
    assert build_results(samples[::-1], batch_size=5, wave=2) == together
    assert samples == before, "a builder changes no sample"
    assert build_results(samples[1:2], batch_size=1, wave=1) == {samples[1].id: together[samples[1].id]}
    if CASES[name].draws:
        other = RunContext(context.folder, context.scratch, 1, context.policy)
        assert build_results(samples, other) != together


@every_builder
def test_a_stopped_run_goes_on_and_every_sample_is_counted(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    builder, config = opened(name)
    manifest = assert_goes_on(builder, config, BASE, folders[name], tmp_path)
    for out in ("whole", "stopped"):
        assert_counted(read_manifest(tmp_path / out), tmp_path / out, rows_of(name, folders[name]))
    assert manifest.counts["pairs"] > 0


def assert_counted(manifest: Manifest, out: Path, samples: list[Sample]) -> None:
    """Each sample was built once; what it gave is kept, or dropped with its reason, and the manifest has the sums."""
    built = list(read_rows(out / BUILT, BuildResult))
    assert sorted(result.sample_id for result in built) == sorted(sample.id for sample in samples)
    assert manifest.counts["samples"] == len(built)
    assert all(bool(result.pairs) != bool(result.dropped) for result in built), "pairs, or the reason why there is none"
    pairs = [pair for result in built for pair in result.pairs]
    teaching = [pair for pair in pairs if dropped_reason(pair) is None]
    kept = list(read_pairs(out))
    assert sorted(pair.id for pair in kept) == sorted(pair.id for pair in teaching)
    assert len({pair.id for pair in kept}) == manifest.counts["pairs"]
    without = sum(not result.pairs for result in built)
    assert sum(manifest.dropped.values()) == without + len(pairs) - len(teaching)
    for key in {key for result in built for key in result.tallies if not key.startswith("share_")}:
        assert manifest.numbers[key] == pytest.approx(sum(result.tallies.get(key, 0.0) for result in built))
