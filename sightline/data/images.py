"""Opening, saving and moving image files: RGB, upright, fully decoded, or one clear sentence why not.

It does not resize or normalize; that is a processor's work (`models`). Rows that name images are read by `samples` and
`preference_dataset`.

A name must stay in its folder. Symbolic links are followed wherever they lead: in the hub's cache, and in a folder of
pictures on another disk, every picture is a link out of the folder. What is linked or copied is the file behind a link.
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

#: The kinds that are opened. Not all that Pillow knows: EPS, for one, would run another program on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")

#: What decoders raise on damaged bytes, as found by damaging files of every format at random.
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
    """The image in RGB, fully decoded: the first frame, turned as its EXIF data say, on white where transparent.

    `where` names the row that asks for it, for the error.

    Raises:
        InputError: the file is missing, empty, no image of a known kind, truncated or damaged.
    """
    check_image_file(path, where)
    return _decoded(path, str(path), where)


def open_embedded(data: bytes, name: str, where: str) -> Image.Image:
    """As `open_image`, of an image whose bytes lie in the row itself; `name` is for the error."""
    if not data:
        raise InputError(f"{where}: image {name} is empty (0 bytes); replace it or drop the row")
    return _decoded(io.BytesIO(data), name, where)


def open_upload(data: bytes, name: str, *, max_bytes: int, max_pixels: int) -> Image.Image:
    """As `open_image`, of what somebody sends: one still picture within limits, which are looked at before decoding.

    Raises:
        InputError: nothing, too many bytes or pixels, several frames, no image of a known kind, truncated or damaged.
    """
    named = f"picture {name[-80:]!r}"
    if not data:
        raise InputError(f"{named} is empty (0 bytes); choose another")
    if len(data) > max_bytes:
        raise InputError(f"{named} has more than the {max_bytes} bytes that may be sent; choose a smaller one")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InputError(
                    f"{named} has {width} x {height} pixels, and {max_pixels} may be sent; choose a smaller one"
                )
            if getattr(image, "n_frames", 1) > 1:
                raise InputError(f"{named} has several frames; choose a still one")
            image.load()
            return _seen(image)
    except UnidentifiedImageError as error:
        raise InputError(f"{named} is no image ({', '.join(FORMATS)} are read); choose another") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{named} has far more than the {max_pixels} pixels that may be sent; choose another"
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{named} is truncated or damaged ({reason}); choose another") from error


def check_image_file(path: Path, where: str) -> None:
    """Refuse an image file that is missing or empty, without decoding it.

    Raises:
        InputError: no such file, a link that leads nowhere, a FIFO, a device, or a file of no bytes.
    """
    named = f"{where}: image {brief(path)}"
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a name with a NUL in it
        detail = ", it is a link that leads nowhere" if _is_link(path) else ""
        raise InputError(f"{named} does not exist{detail}; {_CORRECT}") from error
    except OSError as error:  # a name that no file can have, a link in a circle, a folder that may not be read
        raise InputError(f"{named} cannot be read ({brief(error.strerror or error)}); {_CORRECT}") from error
    if kind := special_kind(status.st_mode):
        raise InputError(f"{named} does not exist as a file, it is {kind}; {_CORRECT}")
    if status.st_size == 0:
        raise InputError(f"{named} is empty (0 bytes); replace the file or drop the row")


def image_path(directory: Path, name: str, where: str) -> Path:
    """The file that a row of a file in `directory` calls `name`.

    Raises:
        InputError: the name is absolute or leads out of the directory, or the file is missing or empty.
    """
    if not name or "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError(f"{where}: image path {shorten(name)} does not stay in {directory}; use a path relative to it")
    path = directory / name
    check_image_file(path, where)
    return path


def link_target_outside(path: Path, directory: Path) -> Path | None:
    """Where a link leads that makes a file of `directory` lie outside of it; None for one that lies within."""
    file = path.resolve()
    return None if file.is_relative_to(directory.resolve()) else file


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image in one piece, in the format of the name's suffix; a kill leaves no half-written file."""
    kind = Image.registered_extensions()[path.suffix.lower()]
    with atomic_write(path, sync=False) as temporary:
        image.save(temporary, format=kind)


def adopt_image(source: Path, name: str, directory: Path, where: str) -> str:
    """Bring image `name` of the directory `source` into `directory` under the same name, and return that name.

    The file is a hard link where the file system allows it, otherwise a copy.

    Raises:
        InputError: the image is missing or its path escapes, or another image has this name there already.
    """
    origin, target = image_path(source, name, where), directory / name
    if target.exists() and not target.is_symlink():  # a link is what earlier versions left
        if origin.samefile(target) or origin.read_bytes() == target.read_bytes():
            return name
        raise InputError(f"{where}: {target} is another image already; choose another --out")
    link_or_copy(origin, target)
    return name


def adopt_by_content(source: Path, name: str, directory: Path, where: str) -> str:
    """As `adopt_image`, under a name that its bytes decide: published sets call many different images by one name.

    Raises:
        InputError: the image is missing or its path escapes.
    """
    origin = image_path(source, name, where)
    named = _content_name(hash_file(origin), name)
    if not (directory / named).exists():
        link_or_copy(origin, directory / named)
    return named


def keep_embedded(data: bytes, name: str, directory: Path) -> str:
    """Write the bytes of an image called `name` into `directory`, named as by `adopt_by_content`; returns the name."""
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
            return _seen(image)
    except UnidentifiedImageError as error:
        raise InputError(
            f"{where}: {brief(name)} is not an image ({', '.join(FORMATS)} are read); replace the file or drop the row"
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


def _seen(image: Image.Image) -> Image.Image:
    """The picture as people see it. What its file says of gray values must be read before it is turned."""
    bits, unsigned = _gray_bits(image), _is_unsigned(image)
    upright = ImageOps.exif_transpose(image)
    if upright.mode[0] not in "IF":
        return _to_rgb(upright)
    values = np.asarray(upright)
    gray = _eight_bits(values.view(np.uint32) if unsigned else values, bits)
    return Image.fromarray(gray).convert("RGB")


def _gray_bits(image: Image.Image) -> int | None:
    """How many bits a gray value of a deep picture has, where its kind says so: 32-bit TIFF does not."""
    if image.mode.startswith("I;16"):
        tag = getattr(image, "tag_v2", {}).get(_BITS, (16,))
        return int(tag[0] if isinstance(tag, tuple) else tag)
    return 16 if image.mode == "I" and image.format in ("PPM", "PNG") else None


def _is_unsigned(image: Image.Image) -> bool:
    """Whether 32-bit integers, which Pillow holds as signed ones, are none."""
    tags = getattr(image, "tag_v2", None)
    if image.mode != "I" or tags is None:
        return False
    return tags.get(_BITS) in ((32,), 32) and tags.get(_SAMPLE_FORMAT, (1,)) in ((1,), 1)


def _eight_bits(values: NDArray[Any], bits: int | None) -> NDArray[np.uint8]:
    """Gray values of more than eight bits as 0 to 255, where `convert` would clip them.

    Without `bits` the values decide: 0 to 1 in floats, 0 to 255 and 0 to 65535 are taken for what they look like, the
    smallest range that holds all; others go from the least value to the greatest, and are black where they are equal.

    Raises:
        ValueError: a value is no finite number.
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
    # What lies under transparent pixels is arbitrary and not for eyes; people see such pictures on a page.
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(page, layer).convert("RGB")


_NAME = re.compile(r"(?:^|[/\\])(?:COCO_(?:train|val|test)\d{4}_)?(\d{12})\.\w+$", re.IGNORECASE)
_STEM = re.compile(r"(?:^|[/\\])COCO_(?:train|val|test)\d{4}_(\d{12})$", re.IGNORECASE)


def coco_id(name: str) -> int:
    """The id in a name of COCO's, such as COCO_val2014_000000391895.jpg or 000000391895.jpg; 0 where there is none."""
    found = _NAME.search(name) or _STEM.search(name)
    return int(found.group(1)) if found else 0
