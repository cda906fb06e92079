"""What to say beside a benchmark's numbers: where own lists or rules stood in, and how many answers a quirk decided.

No number changes here. The sentences are kept beside the estimates (`scoring`), printed by `eval` and `score`, and
repeated by the report (`study.report`).
"""

from collections.abc import Mapping

from sightline.evals.benchmark import TOUCHED, Benchmark, Remarking
from sightline.evals.judging.verdicts import Judged
from sightline.evals.reasoning import ReasoningTally
from sightline.records.rows import Estimate


def remarks_of(
    benchmark: Benchmark, estimates: Mapping[str, Estimate], reasoning: ReasoningTally | None = None
) -> tuple[str, ...]:
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
    if reasoning is not None and reasoning.found:
        said += _on_reasoning(reasoning)
    return tuple(said)


def _on_reasoning(reasoning: ReasoningTally) -> list[str]:
    share = f"{reasoning.found} of {reasoning.answers} answers"
    if not reasoning.strip:
        return [f"{share} hold reasoning in tags, read as part of the answer; --strip-reasoning scores what follows it"]
    lines = [f"the reasoning in {share} was left out before scoring"]
    if reasoning.cut:
        lines.append(f"{reasoning.cut} answers were cut off within their reasoning and are scored as empty")
    return lines
