"""Opening, saving and moving image files: RGB, upright, fully decoded, or one clear sentence why not.

It does not resize or normalize; that is a processor's work (`models`). Rows that name images are read by `samples` and
`preference_dataset`.
"""

import hashlib
import io
import os
import shutil
import struct
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from sightline.errors import InputError
from sightline.records.hashing import hash_file
from sightline.records.store import replacing

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
            return _to_rgb(ImageOps.exif_transpose(image))
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
        InputError: no such file, or a file of no bytes.
    """
    try:
        size = path.stat().st_size if path.is_file() else None
    except (OSError, ValueError) as error:  # a name that no file can have
        raise InputError(f"{where}: image {str(path)!r} cannot be read ({error}); correct the row") from error
    if size is None:
        raise InputError(f"{where}: image {path} does not exist; correct the path or drop the row")
    if size == 0:
        raise InputError(f"{where}: image {path} is empty (0 bytes); replace the file or drop the row")


def image_path(directory: Path, name: str, where: str) -> Path:
    """The file that a row of a file in `directory` calls `name`.

    Raises:
        InputError: the name is absolute or leads out of the directory, or the file is missing or empty.
    """
    if not name or "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise InputError(f"{where}: image path {name!r} does not stay in {directory}; use a path relative to it")
    path = directory / name
    check_image_file(path, where)
    return path


def save_image(image: Image.Image, path: Path) -> None:
    """Write an image in one piece, in the format of the name's suffix; a kill leaves no half-written file."""
    kind = Image.registered_extensions()[path.suffix.lower()]
    with replacing(path, sync=False) as temporary:
        image.save(temporary, format=kind)


def adopt_image(source: Path, name: str, directory: Path, where: str) -> str:
    """Bring image `name` of the directory `source` into `directory` under the same name, and return that name.

    The file is a hard link where the file system allows it, otherwise a copy.

    Raises:
        InputError: the image is missing or its path escapes, or another image has this name there already.
    """
    origin, target = image_path(source, name, where), directory / name
    if target.exists():
        if origin.samefile(target) or origin.read_bytes() == target.read_bytes():
            return name
        raise InputError(f"{where}: {target} is another image already; choose another --out")
    _link_or_copy(origin, target)
    return name


def adopt_by_content(source: Path, name: str, directory: Path, where: str) -> str:
    """As `adopt_image`, under a name that its bytes decide: published sets call many different images by one name.

    Raises:
        InputError: the image is missing or its path escapes.
    """
    origin = image_path(source, name, where)
    named = _content_name(hash_file(origin), name)
    if not (directory / named).exists():
        _link_or_copy(origin, directory / named)
    return named


def keep_embedded(data: bytes, name: str, directory: Path) -> str:
    """Write the bytes of an image called `name` into `directory`, named as by `adopt_by_content`; returns the name."""
    named = _content_name(hashlib.sha256(data).hexdigest(), name)
    if not (directory / named).exists():
        with replacing(directory / named, sync=False) as temporary:
            temporary.write_bytes(data)
    return named


def _content_name(digest: str, name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return f"images/{digest[:32]}{suffix if suffix[1:].isalnum() else ''}"


def _link_or_copy(origin: Path, target: Path) -> None:
    with replacing(target, sync=False) as temporary:
        temporary.unlink(missing_ok=True)
        try:
            os.link(origin, temporary)
        except OSError:  # another file system, or one without links
            shutil.copyfile(origin, temporary)


def _decoded(source: Path | io.BytesIO, name: str, where: str) -> Image.Image:
    try:
        with Image.open(source, formats=FORMATS) as image:
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise InputError(
            f"{where}: {name} is not an image ({', '.join(FORMATS)} are read); replace the file or drop the row"
        ) from error
    except DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{where}: image {name} is truncated or damaged ({reason}); replace the file or drop the row"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16 bits of gray, which `convert` would clip to white instead of scaling
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    # What lies under transparent pixels is arbitrary and not for eyes; people see such pictures on a page.
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(page, layer).convert("RGB")
