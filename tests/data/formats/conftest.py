"""Small files of every layout, with the columns of the published datasets."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sightline.data.formats.importing import ImportRequest, import_layout
from sightline.data.formats.layout import LayoutConfig
from sightline.data.preference_dataset import read_pairs
from sightline.records import Manifest, Pair

Rows = Sequence[Mapping[str, Any]]
GOOD, BAD = "A red cup.", "A red cup and a spoon."


class Folder:
    """A folder with pictures `a.png` (red), `b.png` (blue) and `deep/c.jpg`, and a way to put rows into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name, color in (("a.png", "red"), ("b.png", "blue"), ("deep/c.jpg", "teal")):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (12, 8), color).save(path / name)

    def data(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def put(self, name: str, rows: Rows) -> Path:
        """Write rows as the suffix says."""
        path = self.path / name
        if path.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        else:
            path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
        return path

    def read(self, place: Path, layout: str = "auto", **options: Any) -> tuple[Manifest, Path]:
        """Import into a new directory; `options` are a request's, or those of how rows are read."""
        out = self.path.parent / f"out-{len(list(self.path.parent.glob('out-*')))}"
        read = {name: options.pop(name) for name in list(options) if name in LayoutConfig.model_fields}
        request = ImportRequest(place, layout, read=LayoutConfig.model_validate(read), **options)
        return import_layout(request, out), out

    def pairs(self, place: Path, layout: str = "auto", **options: Any) -> list[Pair]:
        return list(read_pairs(self.read(place, layout, **options)[1]))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "published")


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def user(text: object) -> dict[str, object]:
    return {"role": "user", "content": text}


def assistant(text: object) -> dict[str, object]:
    return {"role": "assistant", "content": text}


def rated(model: str, response: str, *ratings: str) -> dict[str, Any]:
    """A completion of VLFeedback with its three ratings."""
    aspects = ("Helpfulness", "Visual Faithfulness", "Ethical Considerations")
    annotations = {a: {"Rating": r, "Rationale": "So."} for a, r in zip(aspects, ratings, strict=True)}
    return {"model": model, "response": response, "annotations": annotations}


def example(layout: str, folder: Folder) -> tuple[str, Rows]:
    """A file name and two sound rows of a layout, both with a picture and `GOOD` over `BAD`."""
    ask = "What is there?"
    embedded = [{"bytes": folder.data(name), "path": name} for name in ("a.png", "b.png")]
    names = ["a.png", "b.png"]
    rows: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
        "povid": (
            "povid.json",
            lambda i: {
                "id": str(i),
                "image": names[i],
                "conversations": [human(f"<image>\n{ask}"), gpt(GOOD)],
                "rejected_conversations": [human(f"<image>\n{ask}"), gpt(BAD)],
            },
        ),
        "rlhf-v": (
            "rlhf_v.parquet",
            lambda i: {
                "ds_name": "RLHF-V",
                "image": embedded[i],
                "text": json.dumps({"question": ask, "chosen": GOOD, "rejected": BAD}),
                "origin_dataset": "LCS-558K",
                "origin_split": '{"model": "x", "type": "question_answering"}',
                "idx": i,
                "image_path": names[i],
            },
        ),
        "vlfeedback": (
            "vlfeedback.jsonl",
            lambda i: {
                "id": f"svit-{i}",
                "prompt": ask,
                "img_path": names[i],
                "models": ["m1", "m2"],
                "completions": [rated("m1", BAD, "2", "1", "5"), rated("m2", GOOD, "5", "4", "5")],
            },
        ),
        "llava-rlhf": (
            "llava_7b_v1_preference.json",
            lambda i: {
                "id": str(i),
                "image": names[i],
                "conversations": [human(f"<image>\n{ask}"), gpt("(marks the place)")],
                "output_1": {"from": "llava", "value": (GOOD, BAD)[i]},
                "output_2": {"from": "llava", "value": (BAD, GOOD)[i]},
                "preference": i + 1,
            },
        ),
        "rlaif-v": (
            "rlaif_v.parquet",
            lambda i: {
                "ds_name": "RLAIF-V",
                "image": embedded[i],
                "question": ask,
                "chosen": GOOD,
                "rejected": BAD,
                "origin_dataset": "OK-VQA",
                "origin_split": "train",
                "idx": str(i),
                "image_path": "",
            },
        ),
        "mmpr": (
            "mmpr.jsonl",
            lambda i: {"image": names[i], "question": f"<image>\n{ask}", "chosen": GOOD, "rejected": BAD},
        ),
        "llama-factory": (
            "llama.json",
            lambda i: {
                "conversations": [human(f"<image>{ask}")],
                "chosen": gpt(GOOD),
                "rejected": gpt(BAD),
                "images": [names[i]],
            },
        ),
        "ms-swift": (
            "swift.jsonl",
            lambda i: {
                "messages": [user(f"<image>{ask}"), assistant(GOOD)],
                "rejected_response": BAD,
                "images": [names[i]],
            },
        ),
        "trl": (
            "trl.parquet",
            lambda i: {
                "images": [embedded[i]],
                "prompt": [user([{"type": "image", "text": None}, {"type": "text", "text": ask}])],
                "chosen": [assistant([{"type": "text", "text": GOOD}])],
                "rejected": [assistant([{"type": "text", "text": BAD}])],
            },
        ),
        "llava-instruct": (
            "llava_instruct_150k.json",
            lambda i: {"id": str(i), "image": names[i], "conversations": [human(f"<image>\n{ask}"), gpt(GOOD)]},
        ),
    }
    name, row = rows[layout]
    return name, [row(0), row(1)]


def messages_of(pairs: Sequence[Pair]) -> Iterator[tuple[object, ...]]:
    """The fields of a pair that training uses."""
    return ((pair.history, pair.prompt, pair.chosen, pair.rejected) for pair in pairs)
