"""Folders of the judged benchmarks in their owners' layouts, with questions and pictures of our own."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from tests.evals.benches.official_files import write_json, write_lines

TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")


def mmhal_folder(folder: Path, count: int = 8) -> Path:
    rows = [
        {
            "question_type": TYPES[number % 8],
            "question_topic": "own",
            "image_id": f"id{number:02d}",
            "image_src": f"https://nowhere.example/{number:02d}_o.png",
            "image_content": ["Cup", "Table"],
            "question": f"What is number {number}?",
            "gt_answer": f"It is thing {number}.",
            "model_answer": "",
        }
        for number in range(count)
    ]
    for number in range(count):
        path = folder / f"images/{number:02d}_o.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number * 20, 0, 0)).save(path)
    write_json(folder / "response_template.json", rows)
    return folder


def mmhal_answers(folder: Path, *texts: str) -> list[dict[str, Any]]:
    rows = json.loads((folder / "response_template.json").read_text())
    return [{**row, "model_answer": text} for row, text in zip(rows, texts, strict=False)]


def mmvet_folder(folder: Path) -> Path:
    rows = {
        "v1_0": (["ocr", "math"], "-1<AND>-5", "v1_0.png"),
        "v1_1": (["rec"], "a cup<OR>a mug", "v1_1.png"),
        "v1_2": (["math", "ocr"], "7", "v1_1.png"),
        "v1_3": (["rec", "know"], "a lighthouse", "v1_3.png"),
    }
    listed = {
        key: {"imagename": image, "question": f"What is {key}?", "answer": answer, "capability": needs}
        for key, (needs, answer, image) in rows.items()
    }
    write_json(folder / "mm-vet.json", listed)
    return folder


def llava_folder(folder: Path) -> Path:
    categories = ("conv", "detail", "complex", "conv")
    write_lines(
        folder / "questions.jsonl",
        [
            {"question_id": n, "image": f"00{n // 2}.jpg", "category": c, "text": f"Question {n}?"}
            for n, c in enumerate(categories)
        ],
    )
    write_lines(folder / "answers_gpt4.jsonl", [{"question_id": n, "text": f"Reference {n}."} for n in range(4)])
    write_lines(
        folder / "context.jsonl",
        [
            {"id": "000", "image": "000.jpg", "caption": "A hill."},
            {"image": "001.jpg", "caption": ["A sea.", "A boat."]},
        ],
    )
    return folder


def coco_folder(folder: Path) -> Path:
    write_lines(
        folder / "qa90_questions.jsonl",
        [{"question_id": 7, "image": "000000441147.jpg", "category": "detail", "text": "Describe it."}],
    )
    write_lines(folder / "qa90_gpt4_answer.jsonl", [{"question_id": 7, "text": "Two suitcases."}])
    write_lines(
        folder / "caps_boxes_coco2014_val_80.jsonl",
        [
            {
                "image": "000000441147.jpg",
                "captions": ["Two old cases.", "Cases on a floor."],
                "instances": [{"category": "suitcase", "bbox": [0.1, 0.2, 0.3, 0.4]}],
            }
        ],
    )
    return folder
