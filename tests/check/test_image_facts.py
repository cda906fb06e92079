"""Images of every bad kind, and hashes that recognize an image."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.check.image_facts import ImageFacts, Limits, image_hashes, inspect_image
from tests.check.datasets import picture

LIMITS = Limits(min_side=10, max_pixels=1_000_000)


def saved(path: Path, image: Image.Image, **options: object) -> ImageFacts:
    image.save(path, **options)  # type: ignore[arg-type]
    seen = inspect_image(path, LIMITS)
    assert inspect_image(path.read_bytes(), LIMITS) == seen, "bytes and file are the same picture"
    return seen


def checks(look: ImageFacts) -> list[str]:
    return [check for check, _ in look.findings]


def test_a_good_picture(tmp_path: Path) -> None:
    look = saved(tmp_path / "a.png", picture(0))
    assert look.opens and look.findings == () and look.size == (96, 72)
    assert (look.phash, look.dhash) == image_hashes(picture(0))


def test_what_is_put_right_on_loading_is_a_note(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path / "turned.jpg", picture(0).rotate(90, expand=True), exif=exif, quality=95)
    assert checks(turned) == ["image-rotated"] and turned.opens
    upright = image_hashes(picture(0))
    assert upright is not None and turned.phash is not None
    assert (turned.phash ^ upright[0]).bit_count() <= 4, "it is compared as it is seen"
    assert checks(saved(tmp_path / "cmyk.jpg", picture(0).convert("CMYK"))) == ["image-cmyk"]
    frames = saved(tmp_path / "a.gif", picture(0), save_all=True, append_images=[picture(1)])
    assert checks(frames) == ["image-animated"] and frames.opens


def test_what_shows_nothing(tmp_path: Path) -> None:
    assert checks(saved(tmp_path / "one.png", Image.new("RGB", (1, 1)))) == ["image-tiny"]
    assert checks(saved(tmp_path / "thin.png", picture(0, (200, 9)))) == ["image-tiny"]
    blank = saved(tmp_path / "blank.png", Image.new("RGB", (50, 50), "teal"))
    assert checks(blank) == ["image-blank"] and blank.phash is None


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises pixels that are not there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("side", [1_001, 12_000, 60_000])
def test_a_bomb_is_not_opened(side: int) -> None:
    """Above our limit, above Pillow's warning, above Pillow's error."""
    look = inspect_image(bomb(side, side), LIMITS)
    assert not look.opens and len(look.findings) == 1
    assert look.findings[0][0] == "image-huge"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.bmp", "a.tiff"])
def test_truncated_at_every_length_is_never_an_error_of_ours(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    picture(0, (40, 30)).save(path)
    whole = path.read_bytes()
    found = [inspect_image(whole[:end], LIMITS) for end in range(1, len(whole), max(1, len(whole) // 60))]
    assert not found[0].opens and all(checks(look) for look in found if not look.opens)
    assert sum(look.opens for look in found) <= len(found) // 10


def test_no_image_at_all() -> None:
    for data in (b"", b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        assert checks(inspect_image(data, LIMITS)) == ["image-damaged"]


def test_hashes_know_a_picture_again_and_no_other() -> None:
    first, others = image_hashes(picture(0)), [image_hashes(picture(seed)) for seed in range(1, 40)]
    assert first is not None
    file = io.BytesIO()
    picture(0).resize((61, 47)).save(file, "JPEG", quality=60)
    again = image_hashes(Image.open(file).convert("RGB"))
    assert again is not None
    assert (first[0] ^ again[0]).bit_count() <= 4 and (first[1] ^ again[1]).bit_count() <= 12
    for other in others:
        assert other is not None and (first[0] ^ other[0]).bit_count() > 10


def test_the_phash_is_that_of_imagehash() -> None:
    """Values that imagehash 4.3.2 gave for the same pixels."""
    ramp = np.add.outer(np.arange(48) ** 2, np.arange(64) * 3) % 256
    image = Image.fromarray(np.stack([ramp, ramp.T.reshape(48, 64), 255 - ramp], axis=-1).astype(np.uint8))
    found = image_hashes(image)
    assert found is not None
    assert tuple(f"{value:016x}" for value in found) == ("8a020f23aa3e797f", "ada5a1a9ab4a6a52")
