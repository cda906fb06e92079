"""Inspection of one image: whether it opens, what is unusual, and three 64-bit numbers that identify it.

`digest` hashes the file's bytes. `phash` (perceptual hash of Zauner 2010, bit for bit as in the package imagehash)
survives resizing and compression; `dhash` (signs of horizontal steps) confirms it, since either hash alone also matches
unrelated drawings. They are implemented here because imagehash would pull in PyWavelets for ten lines.
"""

import io
import multiprocessing
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
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
_CHUNK = 8  # images per task of a worker process
_FLAT = 2  # maximum range of gray levels in a single-color image


@dataclass(frozen=True)
class Limits:
    """The largest image to open, and the smallest usable side."""

    min_side: int
    max_pixels: int


@dataclass(frozen=True)
class ImageFacts:
    """Facts about an image. `findings` are (check, reason); an image without hashes (None) is not compared."""

    digest: int
    size: tuple[int, int] = (0, 0)
    phash: int | None = None
    dhash: int | None = None
    findings: tuple[tuple[str, str], ...] = ()
    opens: bool = False


InspectAll = Callable[[Sequence[Path | bytes]], Iterable[ImageFacts]]


@contextmanager
def open_image_pool(limits: Limits, workers: int) -> Iterator[InspectAll]:
    """Yield a function that inspects images; `workers` processes share the work, 1 means this process."""
    inspect = partial(inspect_image, limits=limits)
    if workers == 1:
        yield lambda sources: map(inspect, sources)
        return
    # Spawn: a fork would copy the threads of torch.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def inspect_all(sources: Sequence[Path | bytes]) -> Iterable[ImageFacts]:
            try:
                yield from pool.map(inspect, sources, chunksize=_CHUNK)
            except BrokenProcessPool as error:
                raise InputError(
                    f"a worker process was killed while opening {len(sources)} images from {_label(sources[0])} on; "
                    "use fewer --workers or a machine with more memory"
                ) from error

        yield inspect_all


def _label(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "inside a Parquet file"


def inspect_image(source: Path | bytes, limits: Limits) -> ImageFacts:
    """Open an image from an existing file, or from bytes, and describe it."""
    content = picture_digest(source)
    try:
        size, notes = _header(source, limits)
    except InputError as error:
        return ImageFacts(content, findings=(("image-damaged", str(error)),))
    except Image.DecompressionBombError as error:
        return ImageFacts(content, findings=(("image-huge", str(error)),))
    if _pixels(size) > limits.max_pixels:
        reason = f"{size[0]} x {size[1]} pixels are more than {limits.max_pixels}"
        return ImageFacts(content, size, findings=(("image-huge", reason),))
    if min(size) < limits.min_side:
        return ImageFacts(content, size, findings=(("image-tiny", f"{size[0]} x {size[1]} pixels"),))
    try:
        image = _decoded(source)
    except InputError as error:
        return ImageFacts(content, size, findings=(*notes, ("image-damaged", _reason(error))))
    found = image_hashes(image)
    if found is None:
        return ImageFacts(content, size, findings=(*notes, ("image-blank", "all pixels have one color")), opens=True)
    return ImageFacts(content, size, *found, findings=notes, opens=True)


def image_hashes(image: Image.Image) -> tuple[int, int] | None:
    """Return the pHash and dHash of an RGB image; None for a single-color image, whose hashes would be arbitrary."""
    gray = image.convert("L")
    low, high = gray.getextrema()
    if not isinstance(low, int | float) or not isinstance(high, int | float) or high - low <= _FLAT:
        return None
    small = np.asarray(gray.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))
    lowest = dctn(small.astype(np.float64), type=2)[:_LOW, :_LOW]
    steps = np.asarray(gray.resize((_LOW + 1, _LOW), Image.Resampling.LANCZOS))
    return _packed(lowest > np.median(lowest)), _packed(steps[:, 1:] > steps[:, :-1])


def _header(source: Path | bytes, limits: Limits) -> tuple[tuple[int, int], tuple[tuple[str, str], ...]]:
    """Read size and oddities from the header alone: an image that is too large must not be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # decompression bombs are findings here
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
    turned = Image.Image.getexif(image).get(_ORIENTATION, 1)  # PNG's own getexif would decode the image
    if turned not in (0, 1):
        yield "image-rotated", f"EXIF orientation {turned}"


def _pixels(size: tuple[int, int]) -> int:
    return size[0] * size[1]


def _reason(error: Exception) -> str:
    """Return the problem without place and remedy, which the table shows."""
    _, found, reason = str(error).partition("is truncated or damaged")
    return f"truncated or damaged{reason.rpartition(';')[0]}" if found else " ".join(str(error).split())


def _decoded(source: Path | bytes) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata; failed decoding raises
        return open_image(source, "it") if isinstance(source, Path) else open_embedded(source, "inside", "it")


def _packed(bits: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")
