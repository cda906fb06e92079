"""Images: opened as viewers display them, or refused with one sentence, never a crash."""

import io
import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from sightline.data.images import FORMATS, adopt_image, image_path, open_image, open_upload, save_image
from sightline.errors import InputError

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8))


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_image(path, "row 7")
    text = str(caught.value)
    assert text.startswith("row 7: ")
    assert "\n" not in text
    return text.replace(str(path.parent) + "/", "")


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff", "ppm"])
def test_pixels_are_those_saved(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    image = open_image(saved(tmp_path / f"a.{suffix}", NOISE, **options), "")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(NOISE))


@pytest.mark.parametrize("suffix", ["jpg", "gif", "avif"])
def test_lossy_kinds_are_read(make_image: Callable[..., Path], suffix: str) -> None:
    image = open_image(make_image(f"a.{suffix}", size=(32, 16), color="white"), "")
    assert (image.mode, image.size) == ("RGB", (32, 16))
    assert min(image.getpixel((31, 15))) > 240  # type: ignore[arg-type]


def test_the_kind_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    NOISE.save(buffer, "PNG")
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    assert open_image(tmp_path / "a.jpg", "").size == NOISE.size


def test_transparent_is_white_and_half_transparent_is_mixed(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))  # a fifth of black on white
    opened = open_image(saved(tmp_path / "a.png", image), "")
    assert [opened.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (200, 0, 0), (204, 204, 204)]


def test_transparent_palette(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    opened = open_image(saved(tmp_path / "a.png", image, transparency=0), "")
    assert [opened.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (200, 100, 50)]


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    gray = Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16))
    opened = open_image(saved(tmp_path / "a.png", gray), "")
    assert [opened.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_camera_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown rotated by 90 degrees clockwise
    opened = open_image(saved(tmp_path / "a.png", NOISE, exif=exif), "")
    assert np.array_equal(np.asarray(opened), np.rot90(np.asarray(NOISE), -1))


def test_gray_and_cmyk_become_rgb(tmp_path: Path) -> None:
    assert open_image(saved(tmp_path / "a.png", Image.new("L", (1, 1), 77)), "").getpixel((0, 0)) == (77, 77, 77)
    assert open_image(saved(tmp_path / "b.tiff", Image.new("CMYK", (1, 1), (0, 255, 0, 0))), "").getpixel((0, 0)) == (
        255,
        0,
        255,
    )


def test_missing_empty_and_foreign_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.png") == "row 7: image a.png does not exist; correct the path or drop the row"
    (tmp_path / "a.png").touch()
    assert refusal(tmp_path / "a.png") == "row 7: image a.png is empty (0 bytes); replace the file or drop the row"
    (tmp_path / "b.png").write_text("<html>404</html>", encoding="utf-8")
    assert "b.png is not an image (PNG, " in refusal(tmp_path / "b.png")
    (tmp_path / "c").mkdir()
    assert "is a directory and not a file" in refusal(tmp_path / "c")
    assert "does not exist" in refusal(tmp_path / "a\0b")
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))


def test_postscript_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", encoding="ascii"
    )
    assert "is not an image" in refusal(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_at_half(make_image: Callable[..., Path], suffix: str) -> None:
    path = make_image(f"a.{suffix}", size=(64, 64))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"image a.{suffix} is truncated or damaged" in refusal(path)


@pytest.mark.filterwarnings("ignore")  # Pillow warns about some of the damage
@settings(max_examples=150)
@given(st.sampled_from(FORMATS), st.randoms(use_true_random=False))
def test_damaged_bytes_are_opened_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, rng: random.Random
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    buffer = io.BytesIO()
    NOISE.save(buffer, kind)
    data = bytearray(buffer.getvalue())
    if rng.random() < 0.5:
        data = data[: rng.randrange(1, len(data))]
    for _ in range(rng.randrange(6)):
        data[rng.randrange(min(len(data), 200))] = rng.randrange(256)
    path.write_bytes(data)
    try:
        assert open_image(path, "row").mode == "RGB"
    except InputError as error:
        assert str(error).startswith("row: ")  # noqa: PT017


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../a.png", "images/../../a.png", "a\0.png", "images/.."])
def test_paths_stay_in_their_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="does not stay in"):
        image_path(tmp_path, name, "row 7")


def test_linked_folders_are_followed(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("photos/a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "images").symlink_to(tmp_path / "photos")
    assert image_path(tmp_path / "set", "images/a.png", "row 7") == tmp_path / "set" / "images" / "a.png"


def test_saved_in_one_piece_in_the_format_of_the_suffix(tmp_path: Path) -> None:
    for name, kind in (("a.png", "PNG"), ("deep/b.JPG", "JPEG")):
        save_image(NOISE, tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == kind
    assert [path.name for path in sorted(tmp_path.rglob("*.*"))] == ["a.png", "b.JPG"]


def test_adopted_images_keep_their_name_and_bytes(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    origin = make_image("from/images/a.png")
    for _ in range(2):  # the second time it is there already
        assert adopt_image(tmp_path / "from", "images/a.png", tmp_path / "to", "row 7") == "images/a.png"
    assert (tmp_path / "to/images/a.png").samefile(origin)
    origin.unlink()
    assert open_image(tmp_path / "to/images/a.png", "").size == (24, 16)


def test_adopted_images_are_copied_where_links_are_impossible(
    tmp_path: Path, make_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = make_image("from/a.png")
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError("another device")))
    adopt_image(tmp_path / "from", "a.png", tmp_path / "to", "row 7")
    assert not (tmp_path / "to/a.png").samefile(origin)
    assert (tmp_path / "to/a.png").read_bytes() == origin.read_bytes()


def test_adoption_never_overwrites(tmp_path: Path, make_image: Callable[..., Path]) -> None:
    make_image("from/a.png", color="red")
    other = make_image("to/a.png", color="blue").read_bytes()
    with pytest.raises(InputError, match="already exists with another image"):
        adopt_image(tmp_path / "from", "a.png", tmp_path / "to", "row 7")
    assert (tmp_path / "to/a.png").read_bytes() == other


def sent(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_what_is_sent_is_opened_as_a_file_would_be() -> None:
    data = sent(NOISE)
    opened = open_upload(data, "a.png", max_bytes=len(data), max_pixels=120)
    np.testing.assert_array_equal(np.asarray(opened), np.asarray(NOISE))


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 pixels by its header."""
    data = bytearray(sent(NOISE))
    data[16:24] = (30_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


FRAMES = {"save_all": True, "append_images": [Image.new("RGB", NOISE.size)]}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty (0 bytes)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "is not an image"),
        (sent(NOISE)[:200], "is truncated or damaged"),
        (sent(NOISE, "GIF", **FRAMES), "has several frames"),
        (sent(NOISE, "WEBP", **FRAMES), "has several frames"),
        (sent(NOISE, "PNG", **FRAMES), "has several frames"),
        (sent(Image.new("RGB", (20, 20))), "has 20 x 20 pixels, and 200 are allowed"),
        (bomb(), "than the allowed"),
        (b"x" * 2001, "has more than the allowed 2000 bytes"),
    ],
)
def test_what_may_not_be_sent_is_refused_before_it_is_decoded(data: bytes, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        open_upload(data, "sent.png", max_bytes=2000, max_pixels=200)
    assert problem in str(caught.value)
    assert "; choose" in str(caught.value)


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def opened(path: Path) -> Any:
    """The gray values that a picture shows."""
    pixels = np.asarray(open_image(path, ""))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a.png", RAMP.astype(np.uint16) * 257),
        ("a.tif", RAMP.astype(np.uint16) * 257),
        ("a.tif", RAMP.astype(np.int32) * 257),
        ("a.tif", RAMP.astype(np.int32)),
        ("a.tif", RAMP.astype(np.int32) * 8_000_000),
        ("a.tif", RAMP.astype(np.int32) * 8_000_000 - 10**9),
        ("a.tif", RAMP.astype(np.float32) / 255),
        ("a.tif", RAMP.astype(np.float32)),
        ("a.tif", RAMP.astype(np.float32) * 257),
        ("a.tif", RAMP.astype(np.float32) - 100),
    ],
)
def test_a_deep_ramp_shows_as_the_ramp_of_eight_bits(tmp_path: Path, name: str, values: NDArray[Any]) -> None:
    assert np.array_equal(opened(saved(tmp_path / name, Image.fromarray(values))), RAMP)


@pytest.mark.parametrize("most", [65535, 1023])
def test_a_pgm_of_more_than_eight_bits_is_scaled_by_what_it_says_is_white(tmp_path: Path, most: int) -> None:
    """Also where all of it is dark, which the values alone would not tell."""
    values = np.array([[0, most // 4, most // 2, most], [1, 1, 1, 1]], dtype=">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 4 2 %d\n" % most + values.tobytes())
    assert opened(tmp_path / "a.pgm").tolist() == [[0, 63, 127, 255], [0, 0, 0, 0]]
    (tmp_path / "b.pgm").write_bytes(b"P5 4 1 65535\n" + np.full(4, 200, dtype=">u2").tobytes())
    assert opened(tmp_path / "b.pgm").tolist() == [[0] * 4]


def test_unsigned_32_bits_are_not_taken_for_negative_ones(tmp_path: Path) -> None:
    values = (RAMP.astype(np.uint64) * 16_843_009).astype(np.uint32)
    path = saved(tmp_path / "a.tif", Image.fromarray(values.view(np.int32)))
    tag = b"\x53\x01\x03\x00\x01\x00\x00\x00"  # SampleFormat, one short number: 2 is signed, 1 unsigned
    assert path.read_bytes().count(tag + b"\x02") == 1
    path.write_bytes(path.read_bytes().replace(tag + b"\x02", tag + b"\x01"))
    assert np.array_equal(opened(path), RAMP)


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        (0, np.int32, 0),
        (-5, np.int32, 0),
        (2**30, np.int32, 0),
        (0.0, np.float32, 0),
        (1.0, np.float32, 255),
        (-2.5, np.float32, 0),
    ],
)
def test_a_constant_deep_picture_has_one_color(tmp_path: Path, value: float, kind: Any, shown: int) -> None:
    image = Image.fromarray(np.full((3, 3), value, dtype=kind))
    assert (opened(saved(tmp_path / "a.tif", image)) == shown).all()


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    values = np.full((3, 3), np.nan, dtype=np.float32)
    assert "are not finite numbers" in refusal(saved(tmp_path / "a.tif", Image.fromarray(values)))


def test_a_deep_picture_is_turned_upright_and_scaled(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert np.array_equal(opened(saved(tmp_path / "a.png", image, exif=exif)), np.rot90(RAMP, -1))


def test_a_decompression_bomb_is_called_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(bomb())
    text = refusal(tmp_path / "a.png")
    assert "a.png has so many pixels that it may be a decompression bomb" in text and "900000000" in text


def test_a_long_name_is_cut_in_errors(tmp_path: Path) -> None:
    for name in ("x" * 100_000, "deep/" * 20_000, "/" + "x" * 100_000):
        with pytest.raises(InputError) as caught:
            image_path(tmp_path, name, "row 7")
        assert len(str(caught.value)) < 600 + len(str(tmp_path))
