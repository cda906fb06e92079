"""The study of composing, at a size that teaches nothing: every stage once, the table, and a second run that does none.

Its numbers at the real size are in docs/recipes/compose.md.
"""

from contextlib import nullcontext
from pathlib import Path

import pytest

from sightline.lab import BASE
from sightline.lab.sound.ear import EarConfig, SoundStudyConfig
from sightline.lab.sound.study import COMPOSED, GROUPS, MODELS, Study, as_table, run_study
from sightline.records.store import read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BASE / "model.safetensors").exists(), reason="there are no base weights yet"),
]


def test_every_stage_is_done_once(tmp_path: Path) -> None:
    ear = EarConfig(sounds=60, steps=6, batch_size=8)
    config = SoundStudyConfig(ear=ear, rows=20, scenes=3, validation=1, values=(0.5, 1.0))
    study = Study(tmp_path / "out", config, lambda label: nullcontext(lambda done, total: None))
    results = run_study(study, (0, 1))
    assert set(results.models) == set(MODELS) == {"picture", "sound", "joint", *COMPOSED}
    assert set(results.models["mean"]) == set(GROUPS)
    assert set(results.models["sound"]) == {"hear", "both"}
    for by_group in results.models.values():
        for result in by_group.values():
            assert result.accuracy.n == 2 * 3 or result.accuracy.n == 3
            assert result.accuracy.value is not None and 0 <= result.accuracy.value <= 1
    assert all(lead.lead.value == 0 for lead in results.models["mean"].values())
    assert all(weight in (0.5, 1.0) for found in results.weights["damc-searched"] for weight in found.values())
    table = (tmp_path / "out" / "results.md").read_text()
    assert table == as_table(results)
    assert table.count("\n| DAMC: mean |") == 2

    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert run_study(study, (0, 1)) == results
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")} == stamps
    assert read_json(tmp_path / "out" / "results.json") == results.model_dump(mode="json")
