"""Keys of the cache: equal for equal content only; directory and size of the default cache."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sightline.errors import InputError
from sightline.models.tensor_cache import content_key, open_cache
from sightline.records.store import cache_directory


def test_keys_tell_apart_what_differs() -> None:
    one = torch.ones(2, 3)
    different: list[tuple[str | bytes | int | float | Tensor, ...]] = [
        (),
        ("",),
        ("", ""),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (b"abc",),
        (b"a", b"b"),
        (b"abytes:b",),
        (b"abytes:1:b",),
        ("1",),
        (1,),
        (1.0,),
        (True,),
        (0.0,),
        (-0.0,),
        (one,),
        (one.T.contiguous(),),
        (one.double(),),
        (one.view(torch.int32),),
        (one.flatten(),),
        (one[0], one[1]),
        (torch.zeros(2, 3),),
        (-torch.zeros(2, 3),),
        (torch.zeros(0, 3),),
        (torch.zeros(3, 0),),
        (torch.tensor(1.0),),
        (one.view(torch.uint8).numpy().tobytes(),),
    ]
    assert len({content_key(*parts) for parts in different}) == len(different)


def test_keys_are_the_same_for_the_same() -> None:
    grid = torch.arange(12.0).reshape(3, 4)
    assert content_key(grid.T) == content_key(grid.T.contiguous()) == content_key(grid.clone().requires_grad_().T)
    assert content_key("a", 1, grid.bfloat16()) == content_key("a", 1, grid.bfloat16())
    # Fixed keys: a change for the same content would invalidate every existing cache.
    assert content_key("a", b"b", 1, 0.5, torch.ones(2, dtype=torch.bfloat16)).startswith("7de3cee3000da33e")
    with pytest.raises(TypeError):
        content_key(None)  # type: ignore[arg-type]


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("SIGHTLINE_CACHE", "/own/place")
    assert cache_directory() == Path("/own/place")
    monkeypatch.setenv("SIGHTLINE_CACHE", "")
    assert cache_directory() == Path("/xdg/sightline")
    for value in ("", "not/absolute"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert cache_directory() == Path("/home/someone/.cache/sightline")
    monkeypatch.delenv("SIGHTLINE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path("/home/someone/.cache/sightline")


@pytest.mark.parametrize("size", ["twenty", "inf", "nan", ""])
def test_a_size_that_is_no_number(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE_GB", size)
    with pytest.raises(InputError, match="SIGHTLINE_CACHE_GB"):
        open_cache()


def test_the_cache_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path))
    monkeypatch.setenv("SIGHTLINE_CACHE_GB", "0.000001")
    cache = open_cache()
    cache.put("ab" * 10, {"large": torch.zeros(2000)})
    assert cache.get("ab" * 10) is None, "1,000 bytes hold no 8,000"
    cache.put("cd" * 10, {"small": torch.zeros(2)})
    assert cache.get("cd" * 10) is not None
    assert list(tmp_path.iterdir()) == [tmp_path / "cd"]
