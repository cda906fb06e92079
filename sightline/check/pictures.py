"""One picture looked at: does it open, what is odd about it, and three 64-bit numbers by which it is known again.

`digest` is of the file's bytes. `phash` (the perceptual hash of Zauner 2010, bit for bit as the package imagehash makes
it) survives another size or compression; `dhash` (signs of horizontal steps) confirms it, since on drawn pictures
either alone also finds strangers. They are written here because imagehash would bring PyWavelets for ten lines.
"""

import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from scipy.fft import dctn

from sightline.config.problems import brief
from sightline.data.fingerprint import picture_digest
from sightline.data.images import DAMAGE, FORMATS, open_embedded, open_image
from sightline.errors import InputError

_SIDE, _LOW = 32, 8  # pixels that the transform sees, and its lowest frequencies
_ORIENTATION = 0x0112  # the EXIF tag
_FLAT = 2  # gray levels between the darkest and the brightest pixel of a picture of one color


@dataclass(frozen=True)
class Limits:
    """What is not opened at all, and what is too small to show anything."""

    min_side: int
    max_pixels: int


@dataclass(frozen=True)
class Look:
    """A picture as it was found. `findings` are (check, reason); without hashes (None) there is nothing to compare."""

    digest: int
    size: tuple[int, int] = (0, 0)
    phash: int | None = None
    dhash: int | None = None
    findings: tuple[tuple[str, str], ...] = ()
    opens: bool = False


def look_at(source: Path | bytes, limits: Limits) -> Look:
    """Open a picture from a file that exists, or from bytes, and say what it is."""
    content = picture_digest(source)
    try:
        size, notes = _header(source, limits)
    except InputError as error:
        return Look(content, findings=(("image-damaged", str(error)),))
    except Image.DecompressionBombError as error:
        return Look(content, findings=(("image-huge", str(error)),))
    if _pixels(size) > limits.max_pixels:
        reason = f"{size[0]} x {size[1]} pixels are more than {limits.max_pixels}"
        return Look(content, size, findings=(("image-huge", reason),))
    if min(size) < limits.min_side:
        return Look(content, size, findings=(("image-tiny", f"{size[0]} x {size[1]} pixels"),))
    try:
        image = _decoded(source)
    except InputError as error:
        return Look(content, size, findings=(*notes, ("image-damaged", _reason(error))))
    found = hashes_of(image)
    if found is None:
        return Look(content, size, findings=(*notes, ("image-blank", "all pixels have one color")), opens=True)
    return Look(content, size, *found, findings=notes, opens=True)


def hashes_of(image: Image.Image) -> tuple[int, int] | None:
    """The pHash and dHash of an RGB picture; None where it is of one color, whose hashes would be chance."""
    gray = image.convert("L")
    low, high = gray.getextrema()
    if not isinstance(low, int | float) or not isinstance(high, int | float) or high - low <= _FLAT:
        return None
    small = np.asarray(gray.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    lowest = dctn(small.astype(np.float64), type=2)[:_LOW, :_LOW]
    steps = np.asarray(gray.resize((_LOW + 1, _LOW), Image.Resampling.LANCZOS))
    return _packed(lowest > np.median(lowest)), _packed(steps[:, 1:] > steps[:, :-1])


def _header(source: Path | bytes, limits: Limits) -> tuple[tuple[int, int], tuple[tuple[str, str], ...]]:
    """Size and oddities by the header alone: what is too large must not be decoded to find out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of bombs, which are counted here
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as image:
                return image.size, tuple(_oddities(image)) if _pixels(image.size) <= limits.max_pixels else ()
    except UnidentifiedImageError as error:
        raise InputError(f"not an image of a kind that is read ({', '.join(FORMATS)})") from error
    except Image.DecompressionBombError:
        raise
    except DAMAGE as error:
        raise InputError(f"damaged ({brief(error)})") from error


def _oddities(image: Image.Image) -> Iterator[tuple[str, str]]:
    if getattr(image, "is_animated", False):
        yield "image-animated", "more than one frame"
    if image.mode == "CMYK":
        yield "image-cmyk", "the mode is CMYK"
    turned = Image.Image.getexif(image).get(_ORIENTATION, 1)  # PNG's own would decode the picture
    if turned not in (0, 1):
        yield "image-rotated", f"EXIF orientation {turned}"


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _reason(error: Exception) -> str:
    """What is wrong, without the place and the remedy, which the table has."""
    _, found, reason = str(error).partition("is truncated or damaged")
    return f"truncated or damaged{reason.rpartition(';')[0]}" if found else " ".join(str(error).split())


def _decoded(source: Path | bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata; what cannot be decoded is an error
        return open_image(source, "it") if isinstance(source, Path) else open_embedded(source, "inside", "it")


def _packed(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")
