"""Pictures are processed ahead in threads: the same results, the same errors, and threads that end with the work."""

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.errors import InputError
from sightline.models import encoding, prefetch
from sightline.models.encoding import LookAhead, encode_prefix, look_ahead
from sightline.models.prefetch import Prefetch
from sightline.models.requests import GenerateRequest, Prefix, Sampling
from sightline.models.sampler import generate
from sightline.models.vlm import VLM


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Threads for works of any length, and on any machine; none is left at the end."""
    monkeypatch.setattr(prefetch, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(prefetch, "_cores", lambda: 4)
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("sightline-prefetch"):
            thread.join(5)
            assert not thread.is_alive()


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that encoded a prefix."""
    names: list[str] = []
    plain = encoding._encode_prefix

    def encode(*args: Any) -> Any:
        names.append(threading.current_thread().name)
        return plain(*args)

    monkeypatch.setattr(encoding, "_encode_prefix", encode)
    return names


def test_threads_give_what_one_gives(vlm: VLM, pictures: list[Path], encoders: list[str]) -> None:
    prefixes = [Prefix((path,), prompt) for prompt in ("Describe.", "Which?") for path in pictures]
    plain = [encode_prefix(vlm, prefix) for prefix in prefixes]
    assert {name for name in encoders if "prefetch" in name} == set()
    encoders.clear()
    vlm.prefixes.__init__()  # type: ignore[misc]
    ahead = list(look_ahead(vlm, prefixes, lambda prefix: prefix))
    assert ahead == prefixes
    with vlm.prefetch.running():
        LookAhead(vlm, prefixes).reach(len(prefixes))
        found = [encode_prefix(vlm, prefix) for prefix in prefixes]
    assert all("prefetch" in name for name in encoders) and len(encoders) >= len(prefixes)
    for one, other in zip(found, plain, strict=True):
        assert (one.ids, one.text, one.images.paths) == (other.ids, other.text, other.images.paths)
        assert all(torch.equal(value, other.images.tensors[name]) for name, value in one.images.tensors.items())


def test_samples_are_those_without_threads(
    vlm: VLM, pictures: list[Path], encoders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [GenerateRequest(Prefix((path,), f"Is there {n}?"), seed=n) for n in range(6) for path in pictures]
    sampling = Sampling(6, 1.0)
    found = generate(vlm, requests, sampling, batch_size=1)  # 24 rows: two windows
    assert sum("prefetch" in name for name in encoders) > 12
    monkeypatch.setattr(prefetch, "LEAST_SECONDS", 1e9)
    vlm.prefixes.__init__()  # type: ignore[misc]
    encoders.clear()
    assert generate(vlm, requests, sampling, batch_size=1) == found
    assert not any("prefetch" in name for name in encoders)


def test_a_bad_picture_raises_its_error_at_its_row(vlm: VLM, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    prefixes = [Prefix((path,), "Describe.") for path in (*pictures[:2], tmp_path / "bad.png", pictures[2])]
    passed = []

    def encode_all() -> None:
        for prefix in look_ahead(vlm, prefixes, lambda prefix: prefix):
            encode_prefix(vlm, prefix)
            passed.append(prefix)

    with pytest.raises(InputError) as plain:
        encode_prefix(vlm, prefixes[2])
    with pytest.raises(InputError, match=r"bad\.png") as raised:
        encode_all()
    assert passed == prefixes[:2]
    assert str(raised.value) == str(plain.value)


def test_an_interrupt_drops_what_waits() -> None:
    ahead = Prefetch[int]()
    ahead.record(1.0)
    started: list[int] = []

    def work(number: int, _: object) -> int:
        started.append(number)
        time.sleep(0.05)
        return number

    def interrupt() -> None:
        with ahead.running():
            for number in range(100):
                ahead.submit(number, processor, partial(work, number))
            assert ahead.take(0) == 0
            raise KeyboardInterrupt

    processor = object()
    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert ahead.take(1) is None
    assert len(started) < 20


def test_each_thread_has_its_own_processor() -> None:
    ahead = Prefetch[int]()
    processor = [0]
    seen: set[int] = set()

    def work(own: list[int]) -> int:
        seen.add(id(own))
        time.sleep(0.01)
        return 1

    with ahead.running():
        for number in range(12):
            ahead.submit(number, processor, work)
        assert sum(ahead.take(number) or 0 for number in range(12)) == 12
    assert id(processor) not in seen and 1 <= len(seen) <= 3


def test_short_works_get_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "LEAST_SECONDS", 0.003)
    ahead = Prefetch[int]()
    with ahead.running():
        assert not ahead.is_open
        for seconds in (0.01, 0.001, 0.001):
            ahead.record(seconds)
        assert not ahead.is_open
        for seconds in (0.01, 0.01, 0.01):
            ahead.record(seconds)
        assert ahead.is_open
