"""Image corruptions: noise, blur, low resolution, crop, flip, color jitter and gray, for answers that miss details.

A corruption is a function of an image and a random stream. `corrupt_image` writes its result to the scratch folder,
since models read files. Diffusion noise beyond black and white is clipped by the image file.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from sightline.data.images import open_image, save_image
from sightline.errors import InputError
from sightline.models.context import RunContext
from sightline.records import hash_file, hash_json

Corruption = Callable[[Image.Image, np.random.Generator], Image.Image]
STEPS = 1000


def kept_signal(steps: int) -> float:
    """abar_N, the product of 1 - beta_k (arXiv 2407.02477, eq. 9), beta_k a sigmoid from 1e-5 to 5e-3 (eq. 8)."""
    k = np.arange(1, steps + 1)
    beta = (0.5e-2 - 1e-5) / (1 + np.exp(6 - 12 * k / STEPS)) + 1e-5
    return float(np.prod(1 - beta))


def noise(steps: int) -> Corruption:
    """`steps` of a thousand forward diffusion steps at once: sqrt(abar) x + sqrt(1 - abar) eps, x in [0, 1]."""
    signal = kept_signal(steps)

    def corruption(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        pixels = np.asarray(image, np.float64) / 255
        noisy = np.sqrt(signal) * pixels + np.sqrt(1 - signal) * rng.standard_normal(pixels.shape)
        return Image.fromarray((noisy.clip(0, 1) * 255).round().astype(np.uint8))

    return corruption


def blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Gaussian blur of a sixteenth to an eighth of the shorter side."""
    return image.filter(ImageFilter.GaussianBlur(min(image.size) * rng.uniform(1 / 16, 1 / 8)))


def small(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A sixth to a tenth of the resolution, at the original size (STIC's low resolution)."""
    factor = rng.uniform(6, 10)
    size = (max(1, round(image.width / factor)), max(1, round(image.height / factor)))
    return image.resize(size, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)


def jitter(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, contrast and saturation at 0.4 to 1.6, and a shifted hue (STIC's color jitter)."""
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = enhancer(image).enhance(rng.uniform(0.4, 1.6))
    hue, *rest = image.convert("HSV").split()
    turned = Image.fromarray(((np.asarray(hue, np.int32) + int(rng.integers(32, 224))) % 256).astype(np.uint8))
    return Image.merge("HSV", (turned, *rest)).convert("RGB")


def crop(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Random part of at most a fifth of the area, at the original size (mDPO's hard negative)."""
    side = np.sqrt(rng.uniform(0.02, 0.2))
    width, height = max(1, round(image.width * side)), max(1, round(image.height * side))
    left, top = (int(rng.integers(room + 1)) for room in (image.width - width, image.height - height))
    return image.crop((left, top, left + width, top + height)).resize(image.size, Image.Resampling.BILINEAR)


def flip(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Mirrored, or upside down."""
    return ImageOps.mirror(image) if rng.random() < 0.5 else ImageOps.flip(image)


def gray(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Uniform gray: no information is left."""
    return Image.new("RGB", image.size, (128, 128, 128))


def black(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Uniform black (mDPO's other negative)."""
    return Image.new("RGB", image.size)


CORRUPTIONS: dict[str, Corruption] = {
    "blur": blur,
    "small": small,
    "jitter": jitter,
    "crop": crop,
    "flip": flip,
    "gray": gray,
    "black": black,
}


def get_corruption(name: str) -> Corruption:
    """Return a corruption by its name, or `noise-N` for N steps.

    Raises:
        InputError: the name is unknown.
    """
    if name in CORRUPTIONS:
        return CORRUPTIONS[name]
    kind, _, steps = name.partition("-")
    if kind == "noise" and steps.isdecimal() and int(steps) <= STEPS:
        return noise(int(steps))
    raise InputError(
        f"there is no image corruption {name!r}; use noise-0 to noise-{STEPS}, or {', '.join(CORRUPTIONS)}"
    )


def corrupt_image(path: Path, name: str, context: RunContext, rng: np.random.Generator) -> Path:
    """Return the file of a corrupted image, named by its content and its draw; write it if missing."""
    seed = int(rng.integers(2**63))
    target = context.scratch / f"{hash_json([hash_file(path), name, seed])[:32]}.png"
    if not target.exists():
        image = open_image(path, f"image {path}")
        save_image(get_corruption(name)(image, np.random.default_rng(seed)), target)
    return target
