"""Make torchvision importable with a CPU build of torch, for tests only.

Processors with a video part require torchvision, whose wheel is built for CUDA: with a CPU torch its operators cannot
be loaded, so `import torchvision` fails, and with it almost every import from Transformers. Therefore the wheel is in
a folder outside the import path, and only a process that first calls `install` finds it.
"""

import importlib
import importlib.util
import sys
from pathlib import Path

import torch

#: Where `make setup` puts torchvision (and num2words, which SmolVLM's processor requires, and timm).
FOLDER = Path(sys.prefix) / "test-only"
#: Operators that `import torchvision` requires and image processors never call.
OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def install() -> bool:
    """Make torchvision importable in this process; False if it is not installed.

    Raises:
        RuntimeError: Transformers was imported before; it looks for torchvision only once.
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
    if importlib.util.find_spec("timm") is not None:  # vision towers of Gemma 3n, FastVLM and Perception LM
        importlib.import_module("timm")
        assert settled.is_timm_available()
    sys.path.remove(str(FOLDER))  # child processes would inherit the path, but not the operators defined here
    return True


def _library_loads() -> bool:
    """Whether torchvision's own operators load with this torch; they must not be defined twice."""
    spec = importlib.util.find_spec("torchvision")
    assert spec is not None and spec.origin is not None
    try:
        for library in Path(spec.origin).parent.glob("_C*"):
            torch.ops.load_library(library)
            return True
    except OSError:  # built for another torch
        return False
    return False
