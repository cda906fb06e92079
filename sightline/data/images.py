"""Image files: opened in RGB, upright and fully decoded, or refused with one sentence; saved, linked and copied.

Resizing and normalizing is left to the processor (`models`).

A path must stay in its folder, but symbolic links are followed wherever they lead: in the hub's cache every picture is
a link out of its folder. The file behind a link is linked or copied, never the link.
"""

import hashlib
import io
import re
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from sightline.config.problems import brief, shorten
from sightline.errors import InputError
from sightline.records.hashing import hash_file, special_kind
from sightline.records.store import atomic_write, link_or_copy

#: Supported formats. Pillow has more, but EPS, for one, would run another program on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

#: Exceptions of decoders on damaged bytes, found by damaging files of every format at random.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    LookupError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
)
#: Tags of TIFF.
_BITS, _SAMPLE_FORMAT = 258, 339
_WHITE_16 = 2**16 - 1
_CORRECT = "correct the path or drop the row"


def open_image(path: Path, where: str) -> Image.Image:
    """The image in RGB, fully decoded: the first frame, rotated by its EXIF data, transparency on white.

    `where` names the row, for errors.

    Raises:
        InputError: the file is missing, empty, not an image of a supported format, truncated or damaged.
    """
    check_image_file(path, where)
    return _decoded(path, str(path), where)


def open_embedded(data: bytes, name: str, where: str) -> Image.Image:
    """The same as `open_image` for bytes embedded in a row; `name` is for errors."""
    if not data:
        raise InputError(f"{where}: image {name} is empty (0 bytes); replace it or drop the row")
    return _decoded(io.BytesIO(data), name, where)


def open_upload(data: bytes, name: str, *, max_bytes: int, max_pixels: int) -> Image.Image:
    """The same as `open_image` for an uploaded still picture; limits are checked before decoding.

    Raises:
        InputError: the upload is empty, too large, has several frames, or is not an intact image of a supported format.
    """
    named = f"picture {name[-80:]!r}"
    if not data:
        raise InputError(f"{named} is empty (0 bytes); choose another")
    if len(data) > max_bytes:
        raise InputError(f"{named} has more than the allowed {max_bytes} bytes; choose a smaller one")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"{named} has {width} x {height} pixels, and {max_pixels} are allowed; choose a smaller one"
                )
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{named} has several frames; choose a still picture")
            image.load()
            return _displayed(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{named} is not an image ({', '.join(FORMATS)} are supported); choose another") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{named} has far more than the allowed {max_pixels} pixels; choose another") from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{named} is truncated or damaged ({reason}); choose another") from error


def check_image_file(path: Path, where: str) -> None:
    """Refuse an image file that is missing or empty, without decoding it.

    Raises:
        InputError: the file is missing, a broken link, not a regular file, or empty.
    """
    named = f"{where}: image {brief(path)}"
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL in the name
        detail = ", it is a broken link" if _is_link(path) else ""
        raise InputError(f"{named} does not exist{detail}; {_CORRECT}") from error
    except OSError as error:  # an invalid name, a link loop, a folder without read permission
        raise InputError(f"{named} cannot be read ({brief(error.strerror or error)}); {_CORRECT}") from error
    if kind := special_kind(status.st_mode):
        raise InputError(f"{named} is {kind} and not a file; {_CORRECT}")
    if status.st_size == 0:
        raise InputError(f"{named} is empty (0 bytes); replace the file or drop the row")


def image_path(directory: Path, name: str, where: str) -> Path:
    """The path of image `name` of a row whose file is in `directory`.

    Raises:
        InputError: the name is absolute or leaves the directory, or the file is missing or empty.
    """
    if not name or "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError(f"{where}: image path {shorten(name)} does not stay in {directory}; use a path relative to it")
    path = directory / name
    check_image_file(path, where)
    return path


def link_target_outside(path: Path, directory: Path) -> Path | None:
    """The target of a path whose links lead out of `directory`; None if the file is inside."""
    file = path.resolve()
    return None if file.is_relative_to(directory.resolve()) else file


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image atomically, in the format given by the suffix."""
    kind = Image.registered_extensions()[path.suffix.lower()]
    with atomic_write(path, sync=False) as temporary:
        image.save(temporary, format=kind)


def adopt_image(source: Path, name: str, directory: Path, where: str) -> str:
    """Link or copy image `name` of the directory `source` into `directory` under the same name; returns the name.

    Raises:
        InputError: the image is missing, its path leaves `source`, or another image already has this name.
    """
    origin, target = image_path(source, name, where), directory / name
    if target.exists() and not target.is_symlink():  # earlier versions created symbolic links
        if origin.samefile(target) or origin.read_bytes() == target.read_bytes():
            return name
        raise InputError(f"{where}: {target} already exists with another image; choose another --out")
    link_or_copy(origin, target)
    return name


def adopt_by_content(source: Path, name: str, directory: Path, where: str) -> str:
    """The same as `adopt_image`, named by content hash: published datasets use one name for different images.

    Raises:
        InputError: the image is missing or its path leaves `source`.
    """
    origin = image_path(source, name, where)
    named = _content_name(hash_file(origin), name)
    if not (directory / named).exists():
        link_or_copy(origin, directory / named)
    return named


def keep_embedded(data: bytes, name: str, directory: Path) -> str:
    """Write the bytes of image `name` into `directory`, named as by `adopt_by_content`; returns the new name."""
    named = _content_name(hashlib.sha256(data).hexdigest(), name)
    if not (directory / named).exists():
        with atomic_write(directory / named, sync=False) as temporary:
            temporary.write_bytes(data)
    return named


def _content_name(digest: str, name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return f"images/{digest[:32]}{suffix if suffix[1:].isalnum() else ''}"


def _is_link(path: Path) -> bool:
    try:
        return path.is_symlink()
    except (OSError, ValueError):
        return False


def _decoded(source: Path | io.BytesIO, name: str, where: str) -> Image.Image:
    try:
        with Image.open(source, formats=FORMATS) as image:
            image.load()
            return _displayed(image)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{where}: {brief(name)} is not an image ({', '.join(FORMATS)} are supported); replace the file or drop"
            " the row"
        ) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{where}: image {brief(name)} has so many pixels that it may be a decompression bomb ({brief(error)}); "
            "make it smaller or drop the row"
        ) from error
    except DAMAGE as error:
        raise InputError(
            f"{where}: image {brief(name)} is truncated or damaged ({brief(error)}); replace the file or drop the row"
        ) from error


def _displayed(image: Image.Image) -> Image.Image:
    """The picture as a viewer displays it. The bit depth must be read before rotation, which drops the tags."""
    bits, unsigned = _gray_bits(image), _is_unsigned(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] not in "IF":
        return _to_rgb(upright)
    values = np.asarray(upright)
    gray = _eight_bits(values.view(np.uint32) if unsigned else values, bits)
    return Image.fromarray(gray).convert("RGB")


def _gray_bits(image: Image.Image) -> int | None:
    """The bits of a gray value of more than 8 bits; None if the format does not give them (32-bit TIFF)."""
    if image.mode.startswith("I;16"):
        tag = getattr(image, "tag_v2", {}).get(_BITS, (16,))
        return int(tag[0] if isinstance(tag, tuple) else tag)
    return 16 if image.mode == "I" and image.format in ("PPM", "PNG") else None


def _is_unsigned(image: Image.Image) -> bool:
    """Whether the 32-bit integers, which Pillow reads as signed, are unsigned."""
    tags = getattr(image, "tag_v2", None)
    if image.mode != "I" or tags is None:
        return False
    return tags.get(_BITS) in ((32,), 32) and tags.get(_SAMPLE_FORMAT, (1,)) in ((1,), 1)


def _eight_bits(values: NDArray[Any], bits: int | None) -> NDArray[np.uint8]:
    """Gray values of more than eight bits scaled to 0 to 255; Pillow's `convert` would clip them.

    Without `bits` the range is guessed as the smallest of 0 to 1 (floats), 0 to 255 and 0 to 65535 that holds all
    values; otherwise minimum and maximum are mapped to 0 and 255 (all black if equal).

    Raises:
        ValueError: a value is not finite.
    """
    if bits is not None:
        return (values.astype(np.int64) >> (bits - 8)).astype(np.uint8)
    is_float, values = np.issubdtype(values.dtype, np.floating), values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("some gray values are not finite numbers")
    low, high = float(values.min()), float(values.max())
    if is_float and low >= 0 and high <= 1:
        scaled = values * 255
    elif low < 0 or high > _WHITE_16:
        scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    elif high > 255:
        scaled = np.floor(values / 256)
    else:
        scaled = values
    return scaled.round().astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    # Colors of transparent pixels are arbitrary; viewers show such pictures on a white page.
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(page, layer).convert("RGB")


_NAME = re.compile(r"(?:^|[/\\])(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.\w+$", re.IGNORECASE)
_STEM = re.compile(r"(?:^|[/\\])COCO_(?:train|val|test)\d{4}_(\d{12})$", re.IGNORECASE)


def coco_id(name: str) -> int:
    """The id in a COCO file name, such as COCO_val2014_000000391895.jpg or 000000391895.jpg; 0 if there is none."""
    found = _NAME.search(name) or _STEM.search(name)
    return int(found.group(1)) if found else 0
