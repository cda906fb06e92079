"""Limits of picture size and tiles, set in the terms of each image processor.

Processors that keep a picture's resolution (Qwen-VL, GLM-V, Ernie-VL and others) have a range of pixels. They allow
12 million and more, 15,552 tokens of Qwen2.5-VL for a phone's photo, so their upper limit is lowered to `MAX_PIXELS`
where nothing else is set. Other processors scale pictures to a fixed size or to tiles; for them a limit of pixels
scales the picture itself before they see it.
"""

from typing import Any

from PIL import Image

from sightline.errors import InputError
from sightline.models.spec import ModelOptions

#: Default upper limit of a picture, in pixels: 1,280 tokens of Qwen2.5-VL, the value in its model card's example.
MAX_PIXELS = 1280 * 28 * 28
#: Sides are below this number, areas above it: a processor's `size` holds one or the other under the same name.
_LARGEST_SIDE = 16_384
#: Names of the largest number of tiles among image processors.
_TILE_LIMITS = ("max_patches", "max_crops", "max_slice_nums", "max_num_tiles", "max_image_tiles", "max_num_patches")


def set_picture_limits(model: Any, processor: Any, options: ModelOptions, path: str) -> int | None:
    """Set the limits of `options` in the image processor; returns the pixels to which pictures must be scaled first.

    The result is None where the processor itself keeps the limit.

    Raises:
        InputError: a lower limit or a number of tiles that the processor does not have.
    """
    images = getattr(processor, "image_processor", None)
    if images is None:
        given = [name for name in ("max_pixels", "min_pixels", "max_tiles") if getattr(options, name) is not None]
        if given:
            raise InputError(f"{path} is text-only and takes no {given[0]}; leave it out")
        return None
    if options.max_tiles is not None:
        _set_tiles(model.config, images, options.max_tiles, path)
    if not _limits_area(images):
        if options.min_pixels is not None:
            raise InputError(f"the image processor of {path} has no lower limit of pixels; leave min_pixels out")
        return options.max_pixels
    size = dict(images.size)
    largest = options.max_pixels or min(size["longest_edge"], MAX_PIXELS)
    smallest = options.min_pixels or min(size["shortest_edge"], largest)
    images.size = type(images.size)(**{**size, "longest_edge": largest, "shortest_edge": smallest})
    for name, value in (("max_pixels", largest), ("min_pixels", smallest)):
        if getattr(images, name, None) is not None:
            setattr(images, name, value)
    return None


def shrink(picture: Image.Image, max_pixels: int | None) -> Image.Image:
    """The picture, scaled down (bicubic, same aspect) if it has more than `max_pixels`."""
    width, height = picture.size
    if max_pixels is None or width * height <= max_pixels:
        return picture
    factor = (max_pixels / (width * height)) ** 0.5
    return picture.resize((max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.BICUBIC)


def _limits_area(images: Any) -> bool:
    """Whether the processor's `size` holds areas in pixels, and not sides: told by the default of its class."""
    default, size = getattr(type(images), "size", None), getattr(images, "size", None)
    if default is None or size is None or "longest_edge" not in size or "shortest_edge" not in size:
        return False
    longest = dict(default).get("longest_edge")
    return isinstance(longest, int) and longest > _LARGEST_SIDE


def _set_tiles(config: Any, images: Any, most: int, path: str) -> None:
    grids = getattr(images, "image_grid_pinpoints", None)
    if grids:
        side = min(min(grid) for grid in grids)
        kept = [grid for grid in grids if grid[0] * grid[1] <= most * side * side]
        if not kept:
            fewest = min(grid[0] * grid[1] // (side * side) for grid in grids)
            raise InputError(f"the smallest grid of {path} has {fewest} tiles; set max_tiles to {fewest} or more")
        images.image_grid_pinpoints = config.image_grid_pinpoints = kept  # the model derives the grid from its config
        return
    known = [name for name in _TILE_LIMITS if isinstance(getattr(images, name, None), int)]
    if not known:
        raise InputError(f"the image processor of {path} cuts pictures into no tiles; leave max_tiles out")
    for name in known:
        setattr(images, name, min(getattr(images, name), most))
        smallest = name.replace("max", "min", 1)
        if isinstance(getattr(images, smallest, None), int):
            setattr(images, smallest, min(getattr(images, smallest), most))
