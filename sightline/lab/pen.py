"""The pen for sprites: unit coordinates, with a stretch and an outline per object.

`sprites` has the shapes; `drawing` has tiles, backgrounds and placement.
"""

import numpy as np
from PIL import ImageDraw

Color = tuple[int, int, int]


def _mix(a: np.ndarray, b: Color, share: float) -> Color:
    red, green, blue = (int(x * (1 - share) + y * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


class Pen:
    """Draws in unit coordinates with a per-object stretch, so that outlines vary within a kind."""

    def __init__(self, draw: ImageDraw.ImageDraw, side: int, base: np.ndarray, rng: np.random.Generator) -> None:
        self._draw = draw
        self._side = side
        self._stretch = rng.uniform(0.82, 0.96, size=2)
        self._outline = max(1, round(side * rng.uniform(0.02, 0.035)))
        self.main = _mix(base, (0, 0, 0), 0.0)
        dark = sum(self.main) < 180
        self.shade = _mix(base, (255, 255, 255), 0.3) if dark else _mix(base, (0, 0, 0), rng.uniform(0.3, 0.45))
        self.light = _mix(base, (255, 255, 255), rng.uniform(0.35, 0.55))
        self._edge = _mix(base, (255, 255, 255), 0.25) if dark else _mix(base, (0, 0, 0), 0.6)

    def _points(self, points: tuple[float, ...]) -> list[tuple[float, float]]:
        flat = [((v - 0.5) * self._stretch[i % 2] + 0.5) * (self._side - 1) for i, v in enumerate(points)]
        return list(zip(flat[::2], flat[1::2], strict=True))

    def poly(self, *points: float, fill: Color | None = None) -> None:
        self._draw.polygon(self._points(points), fill=fill or self.main, outline=self._edge, width=self._outline)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: Color | None = None, radius: float = 0.0) -> None:
        box = self._points((x0, y0, x1, y1))
        self._draw.rounded_rectangle(
            box, radius * self._side, fill=fill or self.main, outline=self._edge, width=self._outline
        )

    def oval(self, x0: float, y0: float, x1: float, y1: float, fill: Color | None = None) -> None:
        self._draw.ellipse(
            self._points((x0, y0, x1, y1)), fill=fill or self.main, outline=self._edge, width=self._outline
        )

    def disc(self, x: float, y: float, r: float, fill: Color | None = None) -> None:
        self.oval(x - r, y - r, x + r, y + r, fill)

    def pie(
        self, x0: float, y0: float, x1: float, y1: float, start: float, end: float, fill: Color | None = None
    ) -> None:
        box = self._points((x0, y0, x1, y1))
        self._draw.pieslice(box, start, end, fill=fill or self.main, outline=self._edge, width=self._outline)

    def line(self, *points: float, width: float = 0.06, fill: Color | None = None) -> None:
        self._draw.line(
            self._points(points), fill=fill or self._edge, width=max(1, round(width * self._side)), joint="curve"
        )

    def arc(self, x0: float, y0: float, x1: float, y1: float, start: float, end: float, width: float = 0.06) -> None:
        box = self._points((x0, y0, x1, y1))
        self._draw.arc(box, start, end, fill=self._edge, width=max(1, round(width * self._side)))
