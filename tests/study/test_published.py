"""Numbers for pages: an export has those of the study, and the parts that pages quote are written from it."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from sightline.cli import app
from sightline.errors import InputError
from sightline.records.store import read_json, write_json
from sightline.study.report.published import PublishedResults, export_study
from sightline.study.results import load_evidence, outcome
from tests.study.study_directories import CONFIG, NAME, study

ROOT = Path(__file__).parents[2]
KEYS = [("shapes", "hallucinating"), ("shapes-ask", "f1")]
ARMS = {arm: spec for arm, spec in CONFIG["arms"].items() if arm in ("dpo", "ipo", "sharp")}
CHANGES: dict[str, Any] = {
    "arms": ARMS,
    "headline": {
        "benchmark": "shapes",
        "metric": "hallucinating",
        "contrasts": [{"title": "With shapes", "arm": "sharp", "against": "ipo"}],
    },
    "claims": [
        {
            "says": "It helps | much.",
            "there": "80 -> 90",
            "arm": "dpo",
            "against": "base",
            "benchmark": "shapes",
            "metric": "hallucinating",
            "expect": "lower",
        }
    ],
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("generate_results", ROOT / "docs/generate_results.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["generate_results"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PublishedResults, Path]:
    root = tmp_path_factory.mktemp("published")
    plan, out = study(root, count=16, **CHANGES)
    file = root / "pages/shapes.json"
    return file, export_study(file, plan, NAME, out, KEYS, resamples=200), out


def test_an_export_has_the_numbers_of_the_study(exported: tuple[Path, PublishedResults, Path]) -> None:
    file, results, out = exported
    plan_of = load_evidence(study_plan(out), NAME, out)
    found = outcome(plan_of, 200)
    assert results.findings == tuple(f for f in found.findings if (f.benchmark, f.metric) in KEYS)
    assert len(results.findings) == 4 * len(KEYS) and results.contrasts == found.contrasts
    assert results.seeds == (0, 1) and results.claims == found.claims
    stored = PublishedResults.model_validate(read_json(file))
    assert stored == results
    assert all(each.value.n >= 16 and each.value.ci95 for each in stored.findings if each.metric == "hallucinating")


def study_plan(out: Path) -> Any:
    from sightline.study.maintenance import find_study

    return find_study(out, None)[1]


def test_the_command_exports_and_refuses_what_is_not_there(
    exported: tuple[Path, PublishedResults, Path], tmp_path: Path
) -> None:
    out = exported[2]
    file = tmp_path / "x.json"
    done = CliRunner().invoke(
        app, ["study", "export", str(file), "--out", str(out), "--metric", "shapes/hallucinating"]
    )
    assert done.exit_code == 0 and "4 estimates, 1 contrasts, 1 claims" in done.stdout, done.output
    for name, sentence in (("shapes/lies", "does not measure 'shapes/lies'"), ("shapes", "names no benchmark")):
        wrong = CliRunner().invoke(app, ["study", "export", str(file), "--out", str(out), "--metric", name])
        assert wrong.exit_code == 2 and sentence in wrong.stderr and "Traceback" not in wrong.stderr


def test_an_unfinished_study_is_not_exported(tmp_path: Path) -> None:
    arms = {arm: CONFIG["arms"][arm] for arm in ("dpo", "unfinished")}
    plan, out = study(tmp_path, count=8, arms=arms)
    with pytest.raises(InputError, match="not every seed is finished for unfinished"):
        export_study(tmp_path / "x.json", plan, NAME, out)
    assert not (tmp_path / "x.json").exists()


def test_parts_of_a_page_are_written_from_the_file(
    exported: tuple[Path, PublishedResults, Path], script: ModuleType, tmp_path: Path
) -> None:
    file, results, _ = exported
    parts = ("table", "table shapes/hallucinating", "headline", "contrasts", "claims")
    empty = "\n".join(f"<!-- results shapes: {part} -->\nold\n<!-- /results -->" for part in parts)
    page = file.parent / "page.md"
    text = script.with_results(empty, page, file.parent)
    assert "old" not in text and text == script.with_results(text, page, file.parent)
    rows = [line for line in text.splitlines() if line.startswith("| `sharp` |")]
    assert [row.count("|") for row in rows] == [4, 3] and "[numbers](shapes.json)" in text
    found = next(f for f in results.findings if f.arm == "sharp" and f.metric == "hallucinating")
    assert found.difference is not None and found.difference.ci95 is not None and found.difference.value is not None
    low, high = (100 * end for end in found.difference.ci95)
    assert f"| {100 * found.difference.value:.1f} ({low:.1f} to {high:+.1f})" in rows[1]
    assert "**With shapes, sharp " in text and "- With shapes: sharp -" in text
    assert "| It helps \\| much. | 80 -> 90 | dpo - base, shapes/hallucinating: -" in text

    changed = read_json(file)
    changed["findings"][-1]["difference"]["value"] = 0.123
    write_json(tmp_path / "shapes.json", changed)
    assert script.with_results(text, page, tmp_path) != text
    with pytest.raises(InputError, match="have no part 'plot'"):
        script.with_results("<!-- results shapes: plot -->\n<!-- /results -->", page, file.parent)
    with pytest.raises(InputError, match="has no metric 'shapes/lies'"):
        script.with_results("<!-- results shapes: table shapes/lies -->\n<!-- /results -->", page, file.parent)


def test_readme_and_docs_quote_the_results_that_lie_beside_them(script: ModuleType) -> None:
    assert [page.name for page, _ in script.outdated_pages()] == [], "run `python docs/generate_results.py`"
    quoting = [
        page for page in (ROOT / "README.md", ROOT / "docs/results/lab.md") if script.PART.search(page.read_text())
    ]
    assert len(quoting) == 2


def test_the_published_demo_is_the_demo() -> None:
    """Arms, seeds and contrasts of docs/results/demo.json are those that `make demo` runs."""
    from sightline.config import load_config
    from sightline.study.config import StudyConfig

    results = PublishedResults.model_validate(read_json(ROOT / "docs/results/demo.json"))
    config = load_config(StudyConfig, ROOT / "studies/quick.yaml")
    assert config.headline is not None and results.seeds == config.seeds
    assert {found.arm for found in results.findings} == {"base", *config.arms}
    assert [found.title for found in results.contrasts] == [each.title for each in config.headline.contrasts]
    assert all(found.difference is not None for found in results.contrasts)
