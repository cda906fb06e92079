"""Writing a report: `report.html`, `report.md` and `results.json` from the directories of finished stages.

It can be run again at any time and needs no model. `page` has the contents.
"""

from collections.abc import Sequence
from pathlib import Path

from sightline.errors import InputError
from sightline.evals.statistics import RESAMPLES
from sightline.records.store import atomic_write, write_json
from sightline.report.comparison import Results, compare_evaluations
from sightline.report.material import read_material
from sightline.report.page import render_html, render_markdown

HTML, MARKDOWN, RESULTS = "report.html", "report.md", "results.json"


def write_report(
    out: Path,
    *,
    base: Path,
    aligned: Sequence[Path],
    trainings: Sequence[Path] = (),
    pairs: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Results:
    """Compare the base model with the aligned one (or several, one per training seed) and write the report to `out`.

    Trainings and pairs are optional. The same records give the same bytes.

    Raises:
        InputError: a directory is missing or of the wrong kind, or the evaluations cannot be compared.
    """
    if not aligned:
        raise InputError("no aligned model to report on; name its evaluation with --aligned.")
    material = read_material(base, aligned, trainings, pairs)
    results = compare_evaluations(material.base, material.aligned, resamples=resamples, seed=seed)
    html, markdown = (render(results, material, resamples, seed) for render in (render_html, render_markdown))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"output directory {out} cannot be made ({error.strerror}); choose another --out.") from error
    write_json(out / RESULTS, results.model_dump(mode="json"))
    for name, text in ((HTML, html), (MARKDOWN, markdown)):
        with atomic_write(out / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return results
