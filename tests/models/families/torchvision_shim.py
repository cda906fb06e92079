"""Make torchvision importable beside a CPU build of torch, for tests alone.

Processors with a video half insist on torchvision, whose one wheel is built for CUDA: beside a CPU torch its operators
cannot be loaded, so `import torchvision` fails, and with it almost every import from Transformers. So the wheel lies in
a folder of the environment that is on nobody's path, and only a process that calls `install` first sees it.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

#: Where `make setup` puts torchvision (and num2words, which SmolVLM's processor asks for).
FOLDER = Path(sys.prefix) / "test-only"
#: What `import torchvision` looks for in its library, and image processors never call.
OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def install() -> bool:
    """Put torchvision into the process; false if it is not there.

    Raises:
        RuntimeError: Transformers was imported before; it looks for torchvision once, and has settled on doing without.
    """
    if "torchvision" in sys.modules:
        return True
    if not FOLDER.is_dir():
        return False
    if "transformers" in sys.modules:
        raise RuntimeError("transformers was imported before torchvision_shim.install(); call that first")
    sys.path.append(str(FOLDER))
    if not _library_loads():
        for operator in OPERATORS:
            torch.library.define(f"torchvision::{operator}", SCHEMA)
    importlib.import_module("torchvision")
    importlib.import_module("num2words")
    settled = importlib.import_module("transformers.utils")
    assert settled.is_torchvision_available() and settled.is_num2words_available()
    sys.path.remove(str(FOLDER))  # processes that this one spawns inherit the path, and not what was defined here
    return True


def _library_loads() -> bool:
    """Whether torchvision's own operators fit this torch; they may be defined once only."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None and spec.origin is not None
    try:
        for library in Path(spec.origin).parent.glob("_C*"):
            torch.ops.load_library(library)
            return True
    except OSError:  # built for another torch
        return False
    return False
