"""The lab draws the same from a seed in every process, whatever the order of Python's sets."""

import os
import subprocess
import sys

PROGRAM = """
import numpy as np
from sightline.lab.oracle_writer import spoil
from sightline.lab.words import WorldConfig
from sightline.lab.world import scenes
for number, scene in enumerate(scenes(WorldConfig(), "preference", 400)):
    print(spoil(np.random.default_rng(number), f"There is a {scene.objects[0].kind}.", scene))
"""


def _spoiled_texts(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, text=True, capture_output=True, check=True
    ).stdout


def test_mistakes_are_drawn_alike_in_every_process() -> None:
    one, other = _spoiled_texts("1"), _spoiled_texts("2")
    assert one.count("\n") == 400 and one == other
