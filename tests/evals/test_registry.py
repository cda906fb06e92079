"""Names resolve lazily to their factory's benchmark; an unknown name is answered with the nearest one."""

import subprocess
import sys
from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.registry import BENCHMARKS, get_benchmark
from tests.evals.shapes import SHAPES_ENTRY, ShapeBenchmark


def test_a_name_becomes_its_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(BENCHMARKS, "shapes", SHAPES_ENTRY)
    assert get_benchmark("shapes", BenchmarkOptions(tmp_path, limit=3)) == ShapeBenchmark("shapes", tmp_path, 3)


def test_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no benchmark 'lab-pope-randm'; did you mean 'lab-pope-random'\?"):
        get_benchmark("lab-pope-randm", BenchmarkOptions(tmp_path))


def test_every_lab_benchmark_has_its_counter_twin() -> None:
    lab = {name for name in BENCHMARKS if name.startswith("lab-")}
    natural = {name for name in lab if not name.endswith("-counter")}
    assert {name.removesuffix("-counter") for name in lab - natural} == natural
    assert {"lab-chair", "lab-vqa", "lab-pope-random", "lab-pope-popular", "lab-pope-adversarial"} <= natural


def test_the_room_is_importable_without_torch_or_lab() -> None:
    rooms = "sightline.evals.registry, sightline.evals.run, sightline.evals.scoring, sightline.evals.yes_no"
    code = f"import sys, {rooms}; assert not {{'torch', 'transformers', 'sightline.lab'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
