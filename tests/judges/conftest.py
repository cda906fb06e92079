"""Fixtures for the tests of an endpoint's client."""

from pathlib import Path

import pytest

from sightline.endpoint import client


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept answers, empty, and pauses that nobody has to wait for."""
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)
    return tmp_path / "cache/endpoint"
