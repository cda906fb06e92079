"""A plot to draw: what on which axis, and why one looks at it. Drawing is `plots`, captions become `curves`."""

from typing import NamedTuple

from sightline.study.report import plots


class Plan(NamedTuple):
    """`name` tells the plots of a page apart, `unit` stands at the axis, `caption` under the plot."""

    name: str
    title: str
    unit: str
    series: tuple[plots.Series, ...]
    caption: str
