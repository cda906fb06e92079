"""Small folders in the owners' layouts, and helpers to score answers to them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.offline_scoring import ScoredFile, score_file


def write_json(path: Path, value: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def score(bench: str, data: Path, answers: Iterable[Mapping[str, Any]] | Path, **options: Any) -> ScoredFile:
    """Score rows of answers, or a file of them."""
    file = answers if isinstance(answers, Path) else write_lines(data.parent / "answers.jsonl", answers)
    return score_file(bench, file, BenchmarkOptions(data, **options), resamples=100)


def values(scored: ScoredFile) -> dict[str, float | None]:
    return {name: estimate.value for name, estimate in scored.estimates.items()}


def mme_release(folder: Path, questions: Mapping[str, list[tuple[str, str, str]]]) -> Path:
    """MME's release: task -> (picture, question, Yes or No); the sub-tasks alternate between its two layouts."""
    for number, (task, rows) in enumerate(questions.items()):
        texts = folder / task / "questions_answers_YN" if number % 2 else folder / task
        if number % 2:
            (folder / task / "images").mkdir(parents=True)
        texts.mkdir(parents=True, exist_ok=True)
        for picture, question, truth in rows:
            with (texts / f"{picture}.txt").open("a", encoding="utf-8") as file:
                file.write(f"{question} Please answer yes or no.\t{truth}\n")
    return folder


def hallusion_rows(*rows: tuple[str, str, str, str, str, str]) -> list[dict[str, Any]]:
    """HallusionBench's rows from (category, set, figure, question, visual input, right answer as 0 or 1)."""
    return [
        {
            "category": category,
            "subcategory": "chart",
            "visual_input": shown,
            "set_id": group,
            "figure_id": figure,
            "sample_note": "own",
            "question_id": question,
            "question": f"Is claim {question} of set {group} true?",
            "gt_answer_details": f"Claim {question} is {'true' if truth == '1' else 'false'}.",
            "gt_answer": truth,
            "filename": None,
        }
        for category, group, figure, question, shown, truth in rows
    ]
