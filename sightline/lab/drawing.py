"""Rendering of scenes: background, placement, and the object that owns each pixel.

`sprites` draws the kinds; proportions, tilt, shade, outline and details vary with each object's `look` seed. Rendering
is a pure function of the scene.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from sightline.lab.pen import Pen
from sightline.lab.sprites import SPRITES
from sightline.lab.words import COLORS
from sightline.lab.world import IMAGE_SIZE, Scene, SceneObject

_OVERSAMPLE = 2
_SKY: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {  # theme -> upper and lower ground color
    "kitchen": ((206, 196, 176), (168, 150, 128)),
    "street": ((176, 190, 204), (122, 124, 130)),
    "farm": ((178, 202, 214), (150, 168, 110)),
    "beach": ((160, 204, 220), (220, 200, 156)),
    "garden": ((190, 208, 200), (128, 166, 116)),
    "office": ((196, 198, 204), (140, 132, 130)),
    "playroom": ((216, 192, 196), (184, 158, 132)),
    "winter": ((186, 198, 214), (206, 212, 220)),
}


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB image of 96 x 96 pixels."""
    return render_with_owners(scene)[0]


def render_with_owners(scene: Scene) -> tuple[Image.Image, np.ndarray]:
    """The image, and for each pixel the number of the object it shows plus one (0: background), uint8 [96, 96]."""
    rng = np.random.default_rng(scene.look)
    side = IMAGE_SIZE * _OVERSAMPLE
    canvas = _background(rng, scene.theme, side)
    owners = Image.new("L", (side, side), 0)
    for number, item in enumerate(scene.objects, start=1):
        tile = draw_object(item, _OVERSAMPLE)
        corner = (item.box[0] * _OVERSAMPLE, item.box[1] * _OVERSAMPLE)
        alpha = tile.getchannel("A")
        canvas.paste(tile, corner, alpha)
        owners.paste(number, corner, alpha.point(lambda a: 255 if a > 127 else 0))
    image = canvas.reduce(_OVERSAMPLE)
    noise = rng.normal(0, rng.uniform(0, 6), (IMAGE_SIZE, IMAGE_SIZE, 1))
    pixels = np.clip(np.asarray(image, dtype=np.float32) + noise, 0, 255).astype(np.uint8)
    small = owners.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.NEAREST)
    return Image.fromarray(pixels), np.asarray(small, dtype=np.uint8)


def draw_object(item: SceneObject, scale: int) -> Image.Image:
    """One object on a transparent RGBA tile of its box's size times `scale`."""
    rng = np.random.default_rng(item.look)
    side = (item.box[2] - item.box[0]) * scale
    tile = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    jitter = rng.integers(-12, 13, size=3)
    base = np.clip(np.array(COLORS[item.color]) + jitter, 0, 255)
    SPRITES[item.kind](Pen(ImageDraw.Draw(tile), side, base, rng), rng)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return tile.rotate(float(rng.uniform(-12, 12)), resample=Image.Resampling.BILINEAR)


def _background(rng: np.random.Generator, theme: str, side: int) -> Image.Image:
    """Two ground colors with a soft horizon and a few pale patches: a hint of the theme, not a label."""
    upper, lower = (np.clip(np.array(c) + rng.integers(-16, 17, 3), 0, 255) for c in _SKY[theme])
    horizon = rng.uniform(0.35, 0.7) * side
    rows = 1 / (1 + np.exp(-(np.arange(side) - horizon) / (side * 0.02)))
    column = upper[None] * (1 - rows[:, None]) + lower[None] * rows[:, None]
    pixels = np.repeat(column[:, None, :], side, axis=1).astype(np.uint8)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 4))):
        x, y, r = rng.uniform(0, side), rng.uniform(0, side), rng.uniform(0.03, 0.12) * side
        tint = tuple(int(v) for v in np.clip(pixels[int(y), 0].astype(int) + rng.integers(-14, 15), 0, 255))
        draw.ellipse((x - r, y - r * 0.5, x + r, y + r * 0.5), fill=tint)
    return image.filter(ImageFilter.GaussianBlur(1))
