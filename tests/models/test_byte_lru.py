"""The in-memory LRU cache: eviction, its limit, and changed image files."""

from pathlib import Path

import torch
from PIL import Image

from sightline.models.encoding import encode_prefix
from sightline.models.requests import Prefix
from sightline.models.tensor_cache import ByteLRU
from sightline.models.vlm import VLM


def test_the_longest_unused_is_forgotten_first() -> None:
    recent = ByteLRU[str](limit=10)
    computed: list[str] = []

    def fetch(key: str, size: int = 4) -> str:
        def make() -> tuple[str, int]:
            computed.append(key)
            return key.upper(), size

        return recent.fetch(key, make)

    assert [fetch(key) for key in ("a", "b", "a", "c", "a", "b")] == list("ABACAB")
    assert computed == ["a", "b", "c", "b"]
    assert fetch("large", 11) == "LARGE" and fetch("large", 11) == "LARGE"
    assert computed[4:] == ["large", "large"]


def test_a_picture_is_processed_once_until_its_file_changes(vlm: VLM, tmp_path: Path) -> None:
    picture = tmp_path / "one.png"
    Image.new("RGB", (40, 30), "red").save(picture)
    prefix = Prefix((picture,), "Describe.")
    red = encode_prefix(vlm, prefix)
    assert encode_prefix(vlm, Prefix((picture,), "Describe.")) is red
    Image.new("RGB", (41, 30), "blue").save(picture)
    blue = encode_prefix(vlm, prefix)
    assert not torch.equal(red.images.tensors["pixel_values"], blue.images.tensors["pixel_values"])
