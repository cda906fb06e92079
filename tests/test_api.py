"""The public surface: what `import sightline` offers, and the way from a model to a report in Python."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sightline as sl
from sightline.lab import BASE
from sightline.lab.samples import ScenesConfig, write_scenes

SMALL: dict[str, Any] = {"rho": 0.97, "temperature": 0.8, "max_new_tokens": 40}


def test_importing_is_quick_and_leaves_torch_alone() -> None:
    code = (
        "import time; start = time.perf_counter(); import sightline; took = time.perf_counter() - start; import sys; "
    )
    code += "sys.exit('torch' in sys.modules or 'pydantic' in sys.modules or took > 1)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_is_there_and_documented() -> None:
    for name in sl.__all__:
        assert getattr(sl, name) is not None
        assert name == "__version__" or (getattr(sl, name).__doc__ or "").strip()
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        sl.lod  # noqa: B018


def test_from_a_model_to_a_report(tmp_path: Path) -> None:
    write_scenes(ScenesConfig(), "preference", 6, tmp_path / "samples")
    vlm = sl.load("lab")
    assert Path(vlm.path) == BASE
    pairs = sl.build_pairs("bdhs", tmp_path / "samples", model=vlm, **SMALL)
    assert 0 < len(pairs) <= 6 and all(isinstance(pair, sl.Pair) for pair in pairs)
    assert all(Path(image).is_absolute() and Path(image).is_file() for pair in pairs for image in pair.images)
    again = sl.build_pairs("bdhs", tmp_path / "samples", model="lab", out=pairs.path, **SMALL)
    assert again.manifest.runs == 1 and again.path == pairs.path  # found complete
    run = sl.train(vlm, pairs, loss=sl.loss("dpo", beta=0.1), lr=6e-5, max_steps=2, batch_size=2)
    assert run.adapter is not None and run.trained_model is None
    assert [row["step"] for row in run.rows()] == [0, 1] and run.rows()[0]["loss"] == pytest.approx(0.6931, abs=1e-3)
    base, new = (
        sl.evaluate(model, ["lab-chair"], limit=4, out=tmp_path / name) for model, name in ((vlm, "a"), (run, "b"))
    )
    assert {row["metric"] for row in base.rows()} >= {"chair_s", "recall"} and base.manifest.counts == {"lab-chair": 4}
    comparison = sl.compare(base, new)
    assert comparison.results.benchmarks["lab-chair"].metrics["recall"].difference.n == 4
    page = sl.report(base, new, out=tmp_path / "page.html", runs=[run], pairs=pairs)
    assert page.path.read_text().startswith("<!doctype html>") or "<html" in page.path.read_text()[:300]
    for result in (pairs, run, base, comparison):
        assert "<table>" in result._repr_html_() and len(str(result).splitlines()) > 1
        assert len(result.to_frame()) == len(result.rows())


def test_mistakes_are_the_sentences_of_the_commands(tmp_path: Path) -> None:
    with pytest.raises(sl.InputError, match="did you mean 'bdhs'"):
        sl.build_pairs("bhds", tmp_path)
    with pytest.raises(sl.InputError, match="unknown key 'temprature'; did you mean 'temperature'"):
        sl.build_pairs("bdhs", tmp_path, model="lab", rho=0.97, temprature=1.0)
    with pytest.raises(sl.InputError, match=r"no loss is called 'dop' \(did you mean 'dpo'"):
        sl.loss("dop", beta=0.1)
    with pytest.raises(
        sl.InputError,
        match=r"owner/name cannot be fetched: it is not in the hub's cache",
    ):
        sl.train("owner/name", None, loss={"name": "sft"}, lr=1e-4, max_steps=1)
    with pytest.raises(sl.InputError, match="nothing to compare"):
        sl.compare(tmp_path)


def test_text_of_models_is_escaped_in_notebooks() -> None:
    from sightline.api.results import _html_table

    assert "<script>" not in _html_table([{"<script>": "<img onerror=x>"}])
