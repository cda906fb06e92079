"""Rows per second and peak memory of `sightline check` on a synthetic dataset with some thousand shared pictures.

The rows are written first and not timed. What is timed is the user's own command, from its start to its table, in a
fresh process that opens images itself (`--workers 1`): every picture is opened once, every row normalized, sketched and
compared with all others. One row in a hundred is a duplicate, empty, or has no picture, so that there is work to count.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import options, report, versions
from PIL import Image

_TEXT = (
    "a the red blue green small large cup plate table window street dog cat man woman child car tree river bench "
    "lamp stands sits walks behind before beside under over near two three many old new wooden bright dark open closed"
)
_WORDS = _TEXT.split()


def main() -> None:
    """Write a dataset, check it, print the rate."""
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=4_000, help="pictures shared by the rows")
    args = parser.parse_args()
    rows, images = (300, 20) if args.tiny else (args.rows, args.images)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "pairs", rows, images)
        started = time.perf_counter()
        peak = check(folder / "pairs", folder / "out", args.threads)
        seconds = time.perf_counter() - started
        found = json.loads((folder / "out/check.json").read_text())
    result = {
        "rows_per_second": rows / seconds,
        "seconds": seconds,
        "peak_memory_gb": peak / 1e9,
        "rows": found["rows"],
        "images": found["images"],
        "removable": found["removable"],
        "versions": versions(),
    }
    report(result, as_json=args.json)


def write_dataset(directory: Path, rows: int, images: int) -> None:
    """Pairs with answers of about sixty words."""
    draw = random.Random(0)
    (directory / "images").mkdir(parents=True)
    for number in range(images):
        small = Image.frombytes("RGB", (8, 6), draw.randbytes(8 * 6 * 3))
        small.resize((320, 240), Image.Resampling.BICUBIC).save(directory / f"images/{number}.jpg", quality=80)
    with (directory / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for number in range(rows):
            image = draw.randrange(images)
            chosen, rejected = (_text(draw) for _ in range(2))
            if number % 300 == 0:
                chosen = rejected
            if number % 500 == 1:
                image = images  # there is none
            row = {
                "id": f"pair-{number:08d}",
                "images": [f"images/{image}.jpg"],
                "prompt": "Describe the image.",
                "chosen": chosen,
                "rejected": rejected,
                "builder": "synthetic",
                "cluster": str(image),
            }
            file.write(json.dumps(row) + "\n")
            if number % 250 == 2:
                file.write(json.dumps({**row, "id": f"pair-{number:08d}-again"}) + "\n")


def check(dataset: Path, out: Path, threads: int) -> int:
    """Run the command; returns its peak resident memory in bytes."""
    command = [sys.executable, "-m", "sightline", "check", str(dataset), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return usage.ru_maxrss * 1024


def _text(draw: random.Random) -> str:
    """Sentences of random words."""
    words = draw.choices(_WORDS, k=draw.randint(40, 80))
    return f"{' '.join(words[:20]).capitalize()}. {' '.join(words[20:]).capitalize()}."


if __name__ == "__main__":
    main()
