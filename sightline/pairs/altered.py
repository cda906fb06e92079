"""Twins of the reference that differ in one phrase: HALVA (arXiv 2405.18654), the phrases kept as spans."""

from collections.abc import Iterable, Iterator

from pydantic import Field

from sightline.pairs.builder import Builder, Made, Tools, always
from sightline.pairs.rewriting import REMEDY, RewritingConfig, spoiled
from sightline.records import Sample


class AlteredConfig(RewritingConfig):
    """One phrase of the reference is replaced at a time."""

    twins: int = Field(default=1, ge=1, description="altered texts of each reference; one that repeats is left out")


def build_altered(samples: Iterable[Sample], tools: Tools, config: AlteredConfig) -> Iterator[Made]:
    """Up to `twins` pairs a sample, chosen = its reference."""
    return spoiled(samples, tools, config, ALTERED.name, "alter", config.twins)


ALTERED = Builder(
    name="altered",
    summary="Let a writer replace one phrase of the reference at a time (HALVA, arXiv 2405.18654).",
    config=AlteredConfig,
    build=build_altered,
    needs_model=False,
    needs_reference=always,
    remedy=REMEDY,
)
