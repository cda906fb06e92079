"""The reference with believable mistakes as the rejected answer (POVID, arXiv 2402.11411; 2407.02477, table 13)."""

from collections.abc import Iterable, Iterator

from sightline.pairs.builder import Builder, Made, Tools, always
from sightline.pairs.rewriting import REMEDY, RewritingConfig, spoiled
from sightline.records import Sample


class CorruptedConfig(RewritingConfig):
    """The whole reference is rewritten once. The papers' writer is GPT-4V, or GPT-4 with two worked examples."""


def build_corrupted(samples: Iterable[Sample], tools: Tools, config: CorruptedConfig) -> Iterator[Made]:
    """One pair a sample, chosen = its reference."""
    return spoiled(samples, tools, config, CORRUPTED.name, "corrupt")


CORRUPTED = Builder(
    name="corrupted",
    summary="Let a writer put believable mistakes into the reference (POVID, arXiv 2402.11411).",
    config=CorruptedConfig,
    build=build_corrupted,
    needs_model=False,
    needs_reference=always,
    remedy=REMEDY,
)
