"""The forty kinds of object as vector drawings in the unit square; details vary with the rng.

A sprite is a function `(pen, rng) -> None`. `Pen.main` is the object's color, `Pen.shade` and `Pen.light` follow from
it; parts that identify a kind (wheels, windows, legs) have fixed neutral colors, so that color never gives a kind away.
"""

from collections.abc import Callable

import numpy as np

from sightline.lab.pen import Color, Pen

_DARK: Color = (50, 48, 52)
_PALE: Color = (232, 228, 220)
_GLASS: Color = (176, 214, 232)
_WOOD: Color = (130, 92, 58)
_SKIN: Color = (240, 205, 170)


def _cup(p: Pen, rng: np.random.Generator) -> None:
    p.arc(0.6, 0.35, 0.98, 0.75, -90, 90, 0.08)
    p.poly(0.12, 0.22, 0.78, 0.22, 0.7, 0.9, 0.2, 0.9)
    p.oval(0.12, 0.12, 0.78, 0.32, _DARK if rng.random() < 0.5 else _WOOD)


def _plate(p: Pen, rng: np.random.Generator) -> None:
    p.oval(0.02, 0.2, 0.98, 0.8)
    inset = rng.uniform(0.16, 0.24)
    p.oval(0.02 + inset, 0.2 + inset * 0.7, 0.98 - inset, 0.8 - inset * 0.7, p.light)


def _pan(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.55, 0.5, 0.98, 0.1, width=0.12, fill=_WOOD)
    p.disc(0.38, 0.62, 0.34)
    p.disc(0.38, 0.62, 0.24, _DARK)


def _kettle(p: Pen, rng: np.random.Generator) -> None:
    p.arc(0.22, 0.02, 0.72, 0.6, 180, 360, 0.07)
    p.poly(0.68, 0.55, 0.98, 0.28, 0.98, 0.42, 0.75, 0.75)
    p.pie(0.1, 0.3, 0.84, 1.2, 180, 360)
    p.rect(0.1, 0.72, 0.84, 0.92)
    p.disc(0.47, 0.3, 0.06, _DARK)


def _spoon(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.38, 0.42, 0.92, 0.95, width=0.14)
    p.line(0.38, 0.42, 0.9, 0.93, width=0.08, fill=p.main)
    p.oval(0.05, 0.03, 0.5, 0.5)
    p.oval(0.15, 0.12, 0.4, 0.38, p.shade)


def _car(p: Pen, rng: np.random.Generator) -> None:
    p.poly(0.2, 0.5, 0.34, 0.25, 0.68, 0.25, 0.82, 0.5)
    p.poly(0.3, 0.48, 0.38, 0.31, 0.49, 0.31, 0.49, 0.48, fill=_GLASS)
    p.poly(0.54, 0.48, 0.54, 0.31, 0.65, 0.31, 0.73, 0.48, fill=_GLASS)
    p.rect(0.02, 0.48, 0.98, 0.74, radius=0.06)
    for x in (0.25, 0.75):
        p.disc(x, 0.75, 0.13, _DARK)
        p.disc(x, 0.75, 0.05, _PALE)


def _bus(p: Pen, rng: np.random.Generator) -> None:
    p.rect(0.02, 0.1, 0.98, 0.82, radius=0.05)
    count = int(rng.integers(3, 5))
    for i in range(count):
        x = 0.08 + i * 0.86 / count
        p.rect(x, 0.2, x + 0.86 / count - 0.06, 0.48, _GLASS)
    p.rect(0.04, 0.58, 0.96, 0.64, p.shade)
    for x in (0.24, 0.76):
        p.disc(x, 0.83, 0.12, _DARK)


def _traffic_light(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.5, 0.6, 0.5, 1.0, width=0.1, fill=_DARK)
    p.rect(0.28, 0.0, 0.72, 0.76, radius=0.06)
    for y, color in ((0.14, (235, 60, 50)), (0.38, (250, 205, 60)), (0.62, (60, 200, 90))):
        p.disc(0.5, y, 0.1, color)


def _bicycle(p: Pen, rng: np.random.Generator) -> None:
    for x in (0.22, 0.78):
        p.disc(x, 0.66, 0.22, _DARK)
        p.disc(x, 0.66, 0.15, _PALE)
    p.line(0.22, 0.66, 0.42, 0.36, 0.7, 0.36, 0.78, 0.66, width=0.08, fill=p.main)
    p.line(0.42, 0.36, 0.5, 0.66, 0.22, 0.66, width=0.08, fill=p.main)
    p.line(0.5, 0.66, 0.7, 0.36, 0.66, 0.2, 0.8, 0.18, width=0.08, fill=p.main)
    p.line(0.33, 0.27, 0.48, 0.27, width=0.09, fill=_DARK)


def _stop_sign(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.5, 0.5, 0.5, 1.0, width=0.09, fill=_DARK)
    p.poly(0.34, 0.02, 0.66, 0.02, 0.88, 0.24, 0.88, 0.48, 0.66, 0.7, 0.34, 0.7, 0.12, 0.48, 0.12, 0.24)
    p.rect(0.22, 0.29, 0.78, 0.43, _PALE)


def _cow(p: Pen, rng: np.random.Generator) -> None:
    for x in (0.24, 0.36, 0.6, 0.72):
        p.rect(x - 0.04, 0.6, x + 0.04, 0.95, p.shade)
    p.oval(0.12, 0.3, 0.82, 0.74)
    for _ in range(3):
        x, y = rng.uniform(0.25, 0.6), rng.uniform(0.4, 0.58)
        p.oval(x, y, x + 0.15, y + 0.11, _PALE if sum(p.main) < 500 else _DARK)
    p.poly(0.72, 0.12, 0.76, 0.26, 0.7, 0.26, fill=_PALE)
    p.poly(0.96, 0.12, 0.94, 0.26, 0.88, 0.26, fill=_PALE)
    p.oval(0.67, 0.2, 0.97, 0.52)
    p.oval(0.72, 0.38, 0.96, 0.54, _SKIN)


def _barn(p: Pen, rng: np.random.Generator) -> None:
    p.rect(0.1, 0.42, 0.9, 0.96)
    p.poly(0.02, 0.45, 0.2, 0.18, 0.5, 0.02, 0.8, 0.18, 0.98, 0.45, fill=p.shade)
    p.rect(0.34, 0.55, 0.66, 0.96, _PALE)
    p.line(0.34, 0.55, 0.66, 0.96, width=0.05)
    p.line(0.66, 0.55, 0.34, 0.96, width=0.05)


def _tractor(p: Pen, rng: np.random.Generator) -> None:
    p.rect(0.42, 0.12, 0.74, 0.46, _GLASS)
    p.line(0.22, 0.45, 0.22, 0.15, width=0.07, fill=_DARK)
    p.rect(0.08, 0.42, 0.8, 0.7)
    p.rect(0.38, 0.06, 0.78, 0.16)
    p.disc(0.7, 0.68, 0.27, _DARK)
    p.disc(0.7, 0.68, 0.13, _PALE)
    p.disc(0.2, 0.8, 0.15, _DARK)


def _pig(p: Pen, rng: np.random.Generator) -> None:
    for x in (0.28, 0.66):
        p.rect(x - 0.06, 0.65, x + 0.06, 0.92, p.shade)
    p.oval(0.06, 0.26, 0.84, 0.8)
    p.poly(0.62, 0.12, 0.78, 0.24, 0.64, 0.36, fill=p.shade)
    p.disc(0.74, 0.44, 0.2)
    p.oval(0.74, 0.42, 0.96, 0.6, _SKIN)
    p.arc(-0.05, 0.3, 0.12, 0.5, 0, 300, 0.05)


def _hen(p: Pen, rng: np.random.Generator) -> None:
    for x in (0.42, 0.56):
        p.line(x, 0.7, x, 0.96, width=0.05, fill=(230, 150, 40))
    p.poly(0.02, 0.2, 0.3, 0.45, 0.14, 0.66)
    p.oval(0.14, 0.34, 0.76, 0.82)
    p.disc(0.72, 0.3, 0.17)
    p.poly(0.6, 0.16, 0.66, 0.02, 0.73, 0.12, 0.8, 0.02, 0.84, 0.18, fill=(225, 50, 50))
    p.poly(0.86, 0.28, 1.0, 0.34, 0.86, 0.4, fill=(240, 180, 50))


def _umbrella(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.5, 0.3, 0.5, 0.98, width=0.07, fill=_WOOD)
    p.pie(0.0, 0.05, 1.0, 1.0, 180, 360)
    p.pie(0.3, 0.05, 0.7, 1.0, 180, 360, p.light)


def _boat(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.48, 0.05, 0.48, 0.72, width=0.06, fill=_WOOD)
    p.poly(0.52, 0.06, 0.92, 0.6, 0.52, 0.6, fill=_PALE)
    p.poly(0.44, 0.16, 0.44, 0.6, 0.14, 0.6, fill=_PALE)
    p.poly(0.02, 0.66, 0.98, 0.66, 0.8, 0.95, 0.2, 0.95)


def _bucket(p: Pen, rng: np.random.Generator) -> None:
    p.arc(0.14, 0.02, 0.86, 0.7, 180, 360, 0.05)
    p.poly(0.1, 0.34, 0.9, 0.34, 0.74, 0.96, 0.26, 0.96)
    p.poly(0.14, 0.5, 0.86, 0.5, 0.83, 0.62, 0.17, 0.62, fill=p.light)


def _crab(p: Pen, rng: np.random.Generator) -> None:
    for x0, x1 in ((0.25, 0.05), (0.3, 0.14), (0.75, 0.95), (0.7, 0.86)):
        p.line(x0, 0.65, x1, 0.92, width=0.06)
    p.line(0.25, 0.5, 0.12, 0.28, width=0.08)
    p.line(0.75, 0.5, 0.88, 0.28, width=0.08)
    p.pie(0.0, 0.04, 0.28, 0.36, -60, 230)
    p.pie(0.72, 0.04, 1.0, 0.36, -50, 240)
    p.oval(0.16, 0.4, 0.84, 0.82)
    for x in (0.4, 0.6):
        p.disc(x, 0.42, 0.07, _PALE)


def _palm(p: Pen, rng: np.random.Generator) -> None:
    lean = rng.uniform(-0.08, 0.08)
    p.line(0.5 + lean, 0.35, 0.5 - lean, 0.98, width=0.12, fill=_WOOD)
    for x, y in ((0.02, 0.5), (0.12, 0.12), (0.5, 0.0), (0.88, 0.12), (0.98, 0.5)):
        p.poly(0.5 + lean, 0.26, (x + 0.5) / 2 + 0.08, y * 0.5 + 0.02, x, y, (x + 0.5) / 2 - 0.04, y * 0.5 + 0.22)


def _flower(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.5, 0.4, 0.5, 1.0, width=0.07, fill=(60, 120, 60))
    p.poly(0.5, 0.85, 0.78, 0.66, 0.7, 0.86, fill=(80, 150, 80))
    count = int(rng.integers(5, 8))
    for i in range(count):
        angle = 2 * np.pi * i / count
        p.disc(0.5 + 0.22 * np.cos(angle), 0.32 + 0.22 * np.sin(angle), 0.14)
    p.disc(0.5, 0.32, 0.13, _WOOD)


def _tree(p: Pen, rng: np.random.Generator) -> None:
    p.rect(0.42, 0.55, 0.58, 1.0, _WOOD)
    p.disc(0.3, 0.42, 0.26)
    p.disc(0.7, 0.42, 0.26)
    p.disc(0.5, 0.26, 0.26)
    p.oval(0.28, 0.3, 0.72, 0.66)


def _bench(p: Pen, rng: np.random.Generator) -> None:
    for x in (0.14, 0.8):
        p.rect(x, 0.2, x + 0.07, 0.9, _DARK)
    for y in (0.2, 0.36):
        p.rect(0.02, y, 0.98, y + 0.1)
    p.rect(0.0, 0.56, 1.0, 0.7)


def _butterfly(p: Pen, rng: np.random.Generator) -> None:
    p.oval(0.02, 0.06, 0.5, 0.56)
    p.oval(0.5, 0.06, 0.98, 0.56)
    p.oval(0.12, 0.5, 0.5, 0.92, p.light)
    p.oval(0.5, 0.5, 0.88, 0.92, p.light)
    p.oval(0.44, 0.12, 0.56, 0.88, _DARK)
    p.line(0.5, 0.16, 0.38, 0.0, width=0.04)
    p.line(0.5, 0.16, 0.62, 0.0, width=0.04)


def _mushroom(p: Pen, rng: np.random.Generator) -> None:
    p.rect(0.36, 0.45, 0.64, 0.96, _PALE, 0.08)
    p.pie(0.04, 0.05, 0.96, 1.05, 180, 360)
    for x, y in ((0.3, 0.38), (0.52, 0.2), (0.7, 0.4)):
        p.disc(x, y, rng.uniform(0.05, 0.08), _PALE)


def _laptop(p: Pen, rng: np.random.Generator) -> None:
    p.rect(0.16, 0.1, 0.84, 0.64)
    p.rect(0.23, 0.17, 0.77, 0.57, _GLASS if rng.random() < 0.7 else _DARK)
    p.poly(0.16, 0.66, 0.84, 0.66, 1.0, 0.9, 0.0, 0.9)
    p.line(0.2, 0.76, 0.8, 0.76, width=0.05)


def _lamp(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.5, 0.4, 0.5, 0.92, width=0.08, fill=_DARK)
    p.poly(0.34, 0.04, 0.66, 0.04, 0.9, 0.48, 0.1, 0.48)
    p.oval(0.26, 0.84, 0.74, 0.98, _DARK)
    p.oval(0.4, 0.44, 0.6, 0.58, (255, 240, 170))


def _chair(p: Pen, rng: np.random.Generator) -> None:
    for x in (0.22, 0.7):
        p.rect(x, 0.6, x + 0.08, 0.98, _WOOD)
    p.rect(0.2, 0.02, 0.36, 0.62)
    p.poly(0.2, 0.52, 0.8, 0.52, 0.88, 0.68, 0.2, 0.68)


def _book(p: Pen, rng: np.random.Generator) -> None:
    p.poly(0.5, 0.26, 0.02, 0.16, 0.02, 0.8, 0.5, 0.92)
    p.poly(0.5, 0.26, 0.98, 0.16, 0.98, 0.8, 0.5, 0.92)
    p.poly(0.5, 0.28, 0.1, 0.2, 0.1, 0.7, 0.5, 0.82, fill=_PALE)
    p.poly(0.5, 0.28, 0.9, 0.2, 0.9, 0.7, 0.5, 0.82, fill=_PALE)
    for y in (0.36, 0.48, 0.6):
        p.line(0.16, y, 0.44, y + 0.08, width=0.03)
        p.line(0.56, y + 0.08, 0.84, y, width=0.03)


def _clock(p: Pen, rng: np.random.Generator) -> None:
    p.disc(0.5, 0.5, 0.48)
    p.disc(0.5, 0.5, 0.36, _PALE)
    a, b = rng.uniform(0, 2 * np.pi, size=2)
    p.line(0.5, 0.5, 0.5 + 0.3 * np.cos(a), 0.5 + 0.3 * np.sin(a), width=0.05, fill=_DARK)
    p.line(0.5, 0.5, 0.5 + 0.18 * np.cos(b), 0.5 + 0.18 * np.sin(b), width=0.07, fill=_DARK)


def _ball(p: Pen, rng: np.random.Generator) -> None:
    p.disc(0.5, 0.5, 0.48)
    p.pie(0.02, 0.02, 0.98, 0.98, 20, 80, _PALE)
    p.pie(0.02, 0.02, 0.98, 0.98, 140, 200, _PALE)
    p.pie(0.02, 0.02, 0.98, 0.98, 260, 320, _PALE)


def _robot(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.5, 0.2, 0.5, 0.02, width=0.05)
    for x in (0.08, 0.8):
        p.rect(x, 0.5, x + 0.12, 0.8, _DARK)
    for x in (0.3, 0.56):
        p.rect(x, 0.8, x + 0.14, 0.98, _DARK)
    p.rect(0.26, 0.12, 0.74, 0.44)
    p.rect(0.2, 0.46, 0.8, 0.84)
    for x in (0.39, 0.61):
        p.disc(x, 0.28, 0.07, _PALE)
    p.rect(0.34, 0.56, 0.66, 0.68, _GLASS)


def _drum(p: Pen, rng: np.random.Generator) -> None:
    p.rect(0.08, 0.42, 0.92, 0.82)
    p.oval(0.08, 0.7, 0.92, 0.96)
    for i in range(4):
        x = 0.08 + 0.21 * i
        p.line(x, 0.45, x + 0.105, 0.86, x + 0.21, 0.45, width=0.04, fill=_PALE)
    p.oval(0.08, 0.28, 0.92, 0.56, _PALE)
    p.line(0.3, 0.4, 0.05, 0.05, width=0.06, fill=_WOOD)
    p.line(0.7, 0.4, 0.95, 0.05, width=0.06, fill=_WOOD)


def _balloon(p: Pen, rng: np.random.Generator) -> None:
    bend = rng.uniform(-0.15, 0.15)
    p.line(0.5, 0.68, 0.5 + bend, 0.84, 0.5 - bend, 1.0, width=0.04, fill=_DARK)
    p.oval(0.18, 0.0, 0.82, 0.68)
    p.poly(0.5, 0.64, 0.58, 0.75, 0.42, 0.75)
    p.oval(0.3, 0.12, 0.44, 0.28, p.light)


def _kite(p: Pen, rng: np.random.Generator) -> None:
    p.line(0.5, 0.7, 0.62, 0.8, 0.42, 0.88, 0.58, 1.0, width=0.05, fill=_DARK)
    p.poly(0.5, 0.0, 0.88, 0.32, 0.5, 0.74, 0.12, 0.32)
    p.poly(0.5, 0.0, 0.88, 0.32, 0.5, 0.32, fill=p.light)
    p.poly(0.5, 0.74, 0.12, 0.32, 0.5, 0.32, fill=p.light)


def _snowman(p: Pen, rng: np.random.Generator) -> None:
    p.disc(0.5, 0.72, 0.26)
    p.disc(0.5, 0.36, 0.18)
    p.rect(0.3, 0.18, 0.7, 0.25, _DARK)
    p.rect(0.37, 0.02, 0.63, 0.2, _DARK)
    p.poly(0.5, 0.36, 0.74, 0.4, 0.5, 0.43, fill=(240, 140, 40))
    for y in (0.64, 0.76):
        p.disc(0.5, y, 0.035, _DARK)


def _sled(p: Pen, rng: np.random.Generator) -> None:
    p.arc(0.7, 0.3, 1.0, 0.86, -90, 90, 0.07)
    p.line(0.02, 0.85, 0.86, 0.85, width=0.07)
    for x in (0.2, 0.5, 0.74):
        p.rect(x, 0.56, x + 0.06, 0.84, _WOOD)
    p.rect(0.02, 0.42, 0.86, 0.58)


def _penguin(p: Pen, rng: np.random.Generator) -> None:
    p.poly(0.24, 0.4, 0.04, 0.76, 0.26, 0.7)
    p.poly(0.76, 0.4, 0.96, 0.76, 0.74, 0.7)
    for x in (0.38, 0.62):
        p.oval(x - 0.12, 0.88, x + 0.12, 0.99, (240, 150, 40))
    p.oval(0.2, 0.02, 0.8, 0.95)
    p.oval(0.32, 0.34, 0.68, 0.9, _PALE)
    p.poly(0.42, 0.24, 0.58, 0.24, 0.5, 0.38, fill=(240, 150, 40))
    for x in (0.4, 0.6):
        p.disc(x, 0.18, 0.04, _PALE)


def _igloo(p: Pen, rng: np.random.Generator) -> None:
    p.pie(0.0, 0.1, 0.9, 1.5, 180, 360)
    p.line(0.08, 0.56, 0.82, 0.56, width=0.04)
    p.line(0.2, 0.34, 0.7, 0.34, width=0.04)
    for x, y in ((0.3, 0.56), (0.6, 0.56), (0.45, 0.34)):
        p.line(x, y, x, y + 0.22, width=0.04)
    p.pie(0.58, 0.46, 1.0, 1.14, 180, 360, p.light)
    p.pie(0.66, 0.56, 0.92, 1.04, 180, 360, _DARK)


def _mitten(p: Pen, rng: np.random.Generator) -> None:
    p.oval(0.56, 0.34, 0.98, 0.64)
    p.rect(0.18, 0.04, 0.68, 0.78, radius=0.2)
    p.rect(0.14, 0.72, 0.72, 0.96, _PALE, 0.05)
    for x in (0.28, 0.43, 0.58):
        p.line(x, 0.76, x, 0.93, width=0.03)


SPRITES: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "cup": _cup, "plate": _plate, "pan": _pan, "kettle": _kettle, "spoon": _spoon,
    "car": _car, "bus": _bus, "traffic light": _traffic_light, "bicycle": _bicycle, "stop sign": _stop_sign,
    "cow": _cow, "barn": _barn, "tractor": _tractor, "pig": _pig, "hen": _hen,
    "umbrella": _umbrella, "boat": _boat, "bucket": _bucket, "crab": _crab, "palm": _palm,
    "flower": _flower, "tree": _tree, "bench": _bench, "butterfly": _butterfly, "mushroom": _mushroom,
    "laptop": _laptop, "lamp": _lamp, "chair": _chair, "book": _book, "clock": _clock,
    "ball": _ball, "robot": _robot, "drum": _drum, "balloon": _balloon, "kite": _kite,
    "snowman": _snowman, "sled": _sled, "penguin": _penguin, "igloo": _igloo, "mitten": _mitten,
}  # fmt: skip
