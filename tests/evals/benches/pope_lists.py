"""Small lists in POPE's official layout, and a slow reference of the official rule."""

import json
from pathlib import Path
from typing import Any

THINGS = ("cup", "dog", "car", "clock", "bench", "kite")


def write_lists(folder: Path, pictures: int = 4, source: str = "coco", middle: str = "") -> Path:
    """Three lists of six questions on each image, half of them about present objects."""
    folder.mkdir(parents=True, exist_ok=True)
    for shift, split in enumerate(("random", "popular", "adversarial")):
        rows = [
            {
                "question_id": 6 * picture + thing + 1,
                "image": f"COCO_val2014_{1000 + picture:012d}.jpg",
                "text": f"Is there a {THINGS[(thing + shift) % 6]} in the image?",
                "label": "yes" if thing % 2 == 0 else "no",
            }
            for picture in range(pictures)
            for thing in range(6)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{source}_pope_{middle}{split}.json").write_text(text)
    return folder


def questions(folder: Path, split: str = "random") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"coco_pope_{split}.json").read_text().splitlines()]


def write_answers(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reference(answers: list[str], labels: list[str]) -> dict[str, float]:
    """Metrics of the published rule, step by step."""
    cells = {"tp": 0, "fp": 0, "tn": 0, "fn": 0}
    for text, label in zip(answers, labels, strict=True):
        sentence = text[: text.find(".")] if "." in text else text
        words = "".join(c for c in sentence if c != ",").split(" ")
        denies = any(word in words for word in ("No", "not", "no"))
        cells[("f" if denies == (label != "no") else "t") + ("n" if denies else "p")] += 1
    tp, fp, tn, fn = (float(cells[name]) for name in ("tp", "fp", "tn", "fn"))
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    return {
        **cells,
        "accuracy": (tp + tn) / (tp + fp + tn + fn),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
        "yes_ratio": (tp + fp) / (tp + fp + tn + fn),
    }
