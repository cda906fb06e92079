"""Small pair datasets for the tests of the check, and helpers to read its findings."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.check.findings import CheckConfig, CheckFinding, CheckLine, Report
from sightline.check.run import FINDINGS, CheckPlan, check_into
from sightline.records import read_rows


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Soft blobs of color, another for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def row(number: int, **columns: Any) -> dict[str, Any]:
    """A good row on a picture of its own, with texts of its own."""
    return {
        "id": f"pair-{number}",
        "images": [f"images/{number}.png"],
        "prompt": f"What is shown in picture number {number}?",
        "chosen": f"There are {number} red cups on the table beside a window.",
        "rejected": f"A dog sits under {number} old trees near the river.",
        "builder": "test",
        "cluster": f"cluster-{number}",
        **columns,
    }


def write(directory: Path, rows: list[dict[str, Any] | str], pictures: int | None = None) -> Path:
    """Rows (or raw lines) as `pairs.jsonl` with as many pictures."""
    (directory / "images").mkdir(parents=True, exist_ok=True)
    for number in range(len(rows) if pictures is None else pictures):
        picture(number).save(directory / f"images/{number}.png")
    lines = [line if isinstance(line, str) else json.dumps(line) for line in rows]
    (directory / "pairs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return directory


class Checked:
    """A report, and which rows (from 1) each check found."""

    def __init__(self, report: Report, out: Path) -> None:
        self.report = report
        self.findings = list(read_rows(out / FINDINGS, CheckFinding))
        self.rows: dict[str, list[int]] = defaultdict(list)
        for finding in self.findings:
            self.rows[finding.check].append(finding.row)

    def line(self, check: str, of: str = "") -> CheckLine:
        return next(line for line in self.report.lines if (line.check, line.of) == (check, of))

    def reason(self, check: str) -> str:
        return next(finding.reason for finding in self.findings if finding.check == check)


def checked(dataset: Path, out: Path, *, settings: dict[str, Any] | None = None, **plan: Any) -> Checked:
    """Check without a manifest."""
    config = CheckConfig(**{"resamples": 100, **(settings or {})})
    return Checked(check_into(CheckPlan(dataset, config, **plan), out, lambda _: lambda done, total: None), out)
