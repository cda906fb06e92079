"""Writing a study's report: `report.html`, `report.md`, `results.csv` and `results.json`.

It can be run at any time, also while the study runs, and needs no model. `page` has the contents.
"""

from pathlib import Path

from sightline.evals.statistics import RESAMPLES
from sightline.records.store import atomic_write, write_json
from sightline.report.rendering import render
from sightline.study.ledger import Ledger
from sightline.study.plan import StudyPlan
from sightline.study.report.page import context
from sightline.study.report.study_results import StudyResults, csv_text, study_material
from sightline.study.results import load_evidence

HTML, MARKDOWN, CSV, JSON = "report.html", "report.md", "results.csv", "results.json"
REPORTS = "reports"


def report_folder(out: Path, name: str) -> Path:
    """The folder of a study's report: its directory, or `reports/NAME` if several studies share it."""
    return out if set(Ledger(out).studies()) <= {name} else out / REPORTS / name


def write_study_report(plan: StudyPlan, name: str, out: Path, *, resamples: int = RESAMPLES) -> StudyResults:
    """Write all files from what is done so far. The same results give the same bytes.

    Raises:
        InputError: the untrained model or the baseline is not evaluated yet.
    """
    evidence = load_evidence(plan, name, out)
    material = study_material(evidence, resamples)
    shown = context(evidence, material)
    folder = report_folder(out, name)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON, material.results.model_dump(mode="json"))
    for file, text in (
        (CSV, csv_text(material.results)),
        (HTML, render("study.html.jinja", shown)),
        (MARKDOWN, render("study.md.jinja", shown)),
    ):
        with atomic_write(folder / file) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")
    return material.results
