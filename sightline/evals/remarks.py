"""What to say beside a benchmark's numbers: where own lists or rules stood in, and how many answers a quirk decided.

No number changes here. The sentences are kept beside the estimates (`scoring`), printed by `eval` and `score`, and
repeated by the report (`study.report`).
"""

from collections.abc import Mapping

from sightline.evals.benchmark import TOUCHED, Benchmark, Remarking
from sightline.evals.judging.verdicts import Judged
from sightline.records.rows import Estimate


def remarks_of(benchmark: Benchmark, estimates: Mapping[str, Estimate]) -> tuple[str, ...]:
    """Sentences on how a benchmark was scored, none where all was official and no answer unclear.

    `estimates` are those of the answers that were scored, from which the count of touched answers is taken.
    """
    said: list[str] = []
    if isinstance(benchmark, Judged) and not benchmark.verdicts.given:
        said.append(benchmark.unjudged)
    if isinstance(benchmark, Remarking):
        said += benchmark.remarks
    touched = estimates.get(TOUCHED)
    if touched is not None and touched.value:
        said.append(f"{touched.value:.0f} of {touched.n} answers were decided by an official default or quirk")
    return tuple(said)
