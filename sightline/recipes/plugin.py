"""The recipes as a plugin: the builder of curation and the benchmark of entity matching, registered by name."""

from sightline.builders.registry import BUILDERS, REFERENCE, BuilderEntry
from sightline.evals.registry import BENCHMARKS, BenchmarkEntry

BUILDERS.add(
    "graded",
    BuilderEntry(
        "sightline.recipes.curation.graded:GRADED", "Pair graded questions or answers for a reward model.", (REFERENCE,)
    ),
)
BENCHMARKS.add(
    "matching",
    BenchmarkEntry(
        "sightline.recipes.matching.benchmark:entity_matching",
        "Pairs of records: F1 of match under four prompts, mean, best and spread.",
        files="the datasets' owners, as the page on entity matching says; `sightline match read` makes the folder",
    ),
)
