"""Speed of scoring answers, and memory against their number: `python benchmarks/score.py [ROWS ...]`.

Each size is one run of `sightline score pope` in its own process, on generated lists and answers in POPE's layout,
six questions per picture. No model is loaded.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = (1_000, 100_000, 1_000_000)
ANSWERS = ("Yes, there is a cup in the image.", "No.", "No, there is no cup in the image.", "Yes")


def write_files(folder: Path, rows: int) -> None:
    """A list and its answers, in the list's order."""
    with (folder / "coco_pope_random.json").open("w") as lists, (folder / "answers.jsonl").open("w") as answers:
        for number in range(rows):
            image, label = f"COCO_val2014_{number // 6:012d}.jpg", "yes" if number % 2 else "no"
            row = {"question_id": number, "image": image, "text": "Is there a cup in the image?", "label": label}
            lists.write(json.dumps(row) + "\n")
            text = ANSWERS[(number * 7919 + number // 6) % len(ANSWERS)]
            answers.write(json.dumps({"question_id": number, "answer": text}) + "\n")


def measure(rows: int) -> tuple[float, float]:
    """(seconds of one core, peak MiB) of scoring this many answers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder, rows)
        command = [sys.executable, "-m", "sightline", "score", "pope", "--split", "random", "--json"]
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [*command, "--data", name, "--answers", str(folder / "answers.jsonl")],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime, end.ru_maxrss / 1024


if __name__ == "__main__":
    print("| answers | core seconds | answers/s | peak MiB |\n| --- | --- | --- | --- |")
    for size in [int(text) for text in sys.argv[1:]] or SIZES:  # ascending: the peak is over all children so far
        took, peak = measure(size)
        print(f"| {size:,} | {took:.1f} | {size / took:,.0f} | {peak:.0f} |", flush=True)
