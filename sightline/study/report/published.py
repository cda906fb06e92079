"""The numbers of a finished study that pages quote: one JSON file, from which their tables are generated."""

from collections.abc import Sequence
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.statistics import RESAMPLES
from sightline.records.rows import Row
from sightline.records.store import write_json
from sightline.study.claims import ClaimFinding
from sightline.study.headline import ContrastFinding
from sightline.study.plan import StudyPlan
from sightline.study.report.ingredients import manifests, revisions
from sightline.study.report.words import primary_metrics
from sightline.study.results import ArmFinding, load_evidence, outcome


class PublishedResults(Row):
    """Estimates with interval, n and images, differences, contrasts and claims of one study, and the code's revisions.

    `findings` has the chosen metrics of every arm, the baseline included. `p_holm` is corrected over all differences of
    the study, also those left out here.
    """

    study: str
    about: str
    baseline: str
    seeds: tuple[int, ...]
    revisions: tuple[str, ...]
    findings: tuple[ArmFinding, ...]
    contrasts: tuple[ContrastFinding, ...]
    claims: tuple[ClaimFinding, ...]
    unequal: tuple[str, ...]


def export_study(
    file: Path,
    plan: StudyPlan,
    name: str,
    out: Path,
    metrics: Sequence[tuple[str, str]] = (),
    resamples: int = RESAMPLES,
) -> PublishedResults:
    """Write the (benchmark, metric) of `metrics`, or the primary ones, to `file`. The same jobs give the same bytes.

    Raises:
        InputError: an arm is not done with every seed, a metric is not measured, or `file` cannot be written.
    """
    evidence = load_evidence(plan, name, out)
    if evidence.missing:
        raise InputError(
            f"{out}: not every seed is finished for {', '.join(evidence.missing)}; run `sightline study` to the end"
            " before the export"
        )
    found = outcome(evidence, resamples)
    known = list(dict.fromkeys((each.benchmark, each.metric) for each in found.findings))
    chosen = list(metrics) or primary_metrics(found.findings)
    if unknown := [key for key in chosen if key not in known]:
        raise InputError(
            f"{out}: the study does not measure {'/'.join(unknown[0])!r};"
            f" it measures {', '.join('/'.join(key) for key in known)}"
        )
    results = PublishedResults(
        study=name,
        about=found.about,
        baseline=found.baseline,
        seeds=found.seeds,
        revisions=tuple(revisions(manifests(evidence))),
        findings=tuple(each for each in found.findings if (each.benchmark, each.metric) in chosen),
        contrasts=found.contrasts,
        claims=found.claims,
        unequal=found.unequal,
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, results.model_dump(mode="json"))
    except OSError as error:
        raise InputError(f"{file} cannot be written ({error.strerror}); choose another file") from error
    return results
