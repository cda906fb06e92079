"""Setup shared by all tests: no network, few threads, shape checks at run time, and small pictures.

The import hook must be installed before the first import of a checked package, so no sightline import may precede it.
"""

import atexit
import os
import shutil
import signal
import tempfile

# A shell that starts the tests in the background has SIGINT ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Also for the commands that tests run: two, or one where pytest itself works in several processes.
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")
os.environ["MPLBACKEND"] = "Agg"
os.environ["SIGHTLINE_CACHE"] = tempfile.mkdtemp(prefix="sightline-cache-")
atexit.register(shutil.rmtree, os.environ["SIGHTLINE_CACHE"], ignore_errors=True)

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook(["sightline.losses", "sightline.models"], "beartype.beartype")

from tests.models.families import torchvision_shim  # noqa: E402

torchvision_shim.install()  # before the first import of Transformers, which looks for torchvision once

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from PIL import Image, ImageDraw  # noqa: E402

torch.set_num_threads(1)

# A shared machine may stall any single example; what a test takes as a whole is pytest's to show.
settings.register_profile("sightline", deadline=None)
settings.load_profile("sightline")


@pytest.fixture
def make_image(tmp_path: Path) -> Callable[..., Path]:
    """Write a small picture, a dark box on a colored ground, and return its path.

    The name is relative to the test's folder, its suffix is the format; `options` go to Pillow's `save`.
    """

    def make(name: str = "picture.png", size: tuple[int, int] = (24, 16), color: str = "teal", **options: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", size, color)
        ImageDraw.Draw(image).rectangle((size[0] // 4, size[1] // 4, size[0] // 2, size[1] // 2), fill="black")
        image.save(path, **options)
        return path

    return make
