"""Writing a study's report: `report.html`, `report.md`, `results.csv` and `results.json`.

It may be run again at any time, also while the study runs, and reads no model. What goes on the page is `page`.
"""

from pathlib import Path

from sightline.evals.statistics import RESAMPLES
from sightline.records.store import atomic_write, write_json
from sightline.report.rendering import render
from sightline.study.ledger import Ledger
from sightline.study.plan import StudyPlan
from sightline.study.report.page import context
from sightline.study.report.study_results import StudyResults, csv_text, study_material
from sightline.study.results import gather

HTML, MARKDOWN, CSV, JSON = "report.html", "report.md", "results.csv", "results.json"
REPORTS = "reports"


def report_folder(out: Path, name: str) -> Path:
    """Where the report of a study lies: its directory; `reports/NAME` of one that several studies share."""
    return out if set(Ledger(out).studies()) <= {name} else out / REPORTS / name


def write_study_report(plan: StudyPlan, name: str, out: Path, *, resamples: int = RESAMPLES) -> StudyResults:
    """Write all files of what is done so far; same pieces, same bytes.

    Raises:
        InputError: the untrained model or the baseline is not measured yet.
    """
    evidence = gather(plan, name, out)
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
