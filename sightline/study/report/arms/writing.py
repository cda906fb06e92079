"""Writing a study's report: `report.html`, `report.md`, `results.csv` and `results.json` in the study's directory.

It may be run again at any time, also while the study runs. What goes on the page is `page`.
"""

from pathlib import Path

from sightline.study.outcome import Outcome, outcome_of
from sightline.study.plan import StudyPlan
from sightline.study.tables import MARKDOWN, write_outcome

REPORT = MARKDOWN


def write_study_report(plan: StudyPlan, name: str, out: Path) -> Outcome:
    """Write all files of what is done so far; same pieces, same bytes.

    Raises:
        InputError: the untrained model or the baseline is not measured yet.
    """
    found = outcome_of(plan, name, out)
    write_outcome(found, out)
    return found
