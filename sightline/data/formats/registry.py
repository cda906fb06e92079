"""Layouts of dataset files by name, and which of them the rows of a file have."""

from collections.abc import Iterable
from itertools import islice

from sightline.config.problems import brief
from sightline.data.formats.layout import FileLayout
from sightline.data.formats.llama_factory import LLAMA_FACTORY
from sightline.data.formats.ms_swift import MS_SWIFT
from sightline.data.formats.published import LLAVA_INSTRUCT, LLAVA_RLHF, MMPR, POVID, RLAIF_V, RLHF_V, VLFEEDBACK
from sightline.data.formats.raw import Raw
from sightline.data.formats.trl import TRL
from sightline.errors import InputError
from sightline.registry import Registry, load_target

_SHIPPED = (POVID, RLHF_V, VLFEEDBACK, LLAVA_RLHF, RLAIF_V, MMPR, LLAVA_INSTRUCT, LLAMA_FACTORY, MS_SWIFT, TRL)
LAYOUTS: Registry[FileLayout] = Registry(
    "layout", "sightline.layouts", load_target, {layout.name: layout for layout in _SHIPPED}
)
AUTO = "auto"
_LOOKED_AT = 32  # rows that decide, since some of a set may lack what tells it apart


def get_layout(name: str) -> FileLayout:
    """The layout of that name; an InputError names the nearest spelling where there is none."""
    return LAYOUTS.entry(name)


def detect_layout(rows: Iterable[Raw]) -> FileLayout:
    """The one layout that the first rows have, by their columns.

    Raises:
        InputError: there is no row, or they have none or several.
    """
    looked = [raw for raw in islice(rows, _LOOKED_AT) if not raw.problem]
    if not looked:
        raise InputError("there is no row to know a layout by; name the layout, or check the file")
    fitting = [layout for layout in LAYOUTS.values() if all(layout.fits(raw.columns) for raw in looked)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " and ".join(layout.name for layout in fitting)
        raise InputError(f"{looked[0].where}: the rows fit the layouts {names}; name the one that is meant")
    columns = brief(", ".join(looked[0].columns)) or "none"
    raise InputError(
        f"{looked[0].where}: the columns ({columns}) are of no one layout that is known ({', '.join(LAYOUTS)});"
        " name one, or rename the columns"
    )
