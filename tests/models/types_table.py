"""Write what the conformance of types finds: `python -m tests.models.types_table [TYPE...]`; without types, all.

It rewrites `sightline/models/families/conformance.json` and the table in `docs/how-it-works/models.md`.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.models.families import torchvision_shim

torchvision_shim.install()

import torch  # noqa: E402
import transformers  # noqa: E402
from torch import Tensor  # noqa: E402

import sightline.models.families as families_room  # noqa: E402
from sightline.models.loading import load_vlm  # noqa: E402
from sightline.models.packing import PackRow  # noqa: E402
from sightline.models.requests import Prefix, ScoreRequest  # noqa: E402
from sightline.models.scorer import encode_row  # noqa: E402
from sightline.models.unbatched import unbatched_logps  # noqa: E402
from sightline.models.vlm import VLM  # noqa: E402
from tests.models import families  # noqa: E402
from tests.models.tiny import save_pictures  # noqa: E402
from tests.models.zoo import ZOO  # noqa: E402
from tests.models.zoo_models import proved, rows_of  # noqa: E402

TABLE = Path(families_room.__file__).parent / "conformance.json"
PAGE = Path(__file__).parents[2] / "docs" / "how-it-works" / "models.md"
BEGIN, END = "<!-- types: written by `python -m tests.models.types_table` -->\n", "<!-- end of types -->"


def measure(plain: VLM, vlm: VLM, rows: list[PackRow], reference: str | None) -> dict[str, Any]:
    """Largest differences from the model's own forward: nats, and gradients relative to each weight's largest one."""
    with torch.no_grad():
        off = (vlm.way.scores(vlm, rows).logps - unbatched_logps(plain, rows)).abs().max()
    found: dict[str, Any] = {"way": vlm.way.name, "hiding": vlm.way.hiding, "log_probs": float(off)}
    if vlm.way.hiding is not None and vlm.is_multimodal:
        count = rows[0].prefix.ids.count(vlm.image_token_id)
        some = [PackRow(rows[0].prefix, rows[0].answers[:2], frozenset({0, count - 1}))]
        with torch.no_grad():
            off = (vlm.way.scores(vlm, some).logps - unbatched_logps(plain, some, reference)).abs().max()
        found["hidden"] = float(off)
    found["gradients"] = _gradients_off(plain, vlm, rows[:2])
    limit = getattr(vlm.proof, "limit", None)
    return {**found, **({"limit": limit} if limit else {}), "transformers": transformers.__version__}


def _gradients_off(plain: VLM, vlm: VLM, rows: list[PackRow]) -> float:
    for one in (plain, vlm):
        one.model.requires_grad_(True)
    expected = _gradients(plain, unbatched_logps(plain, rows))
    found = _gradients(vlm, vlm.way.scores(vlm, rows).logps)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    moved = {name: gradient for name, gradient in expected.items() if gradient.abs().max() > 1e-5 * largest}
    return max(float((found[name] - gradient).abs().max() / gradient.abs().max()) for name, gradient in moved.items())


def _gradients(vlm: VLM, logps: Tensor) -> dict[str, Tensor]:
    vlm.model.zero_grad(set_to_none=True)
    logps.sum().backward()
    return {name: weight.grad.clone() for name, weight in vlm.model.named_parameters() if weight.grad is not None}


def measure_type(name: str) -> dict[str, Any]:
    """What is found for a type of the zoo."""
    plain, vlm, proof = proved(name)
    return measure(plain, vlm, rows_of(plain, name), proof.reference)


def measure_family(name: str) -> dict[str, Any]:
    """What is found for a listed family, with its own processor."""
    with tempfile.TemporaryDirectory() as folder:
        directory = families.FAMILIES[name](Path(folder) / "model")
        pictures = save_pictures(Path(folder), 2)
        plain, vlm = load_vlm(directory), load_vlm(directory)
        images = [(pictures[0],), (pictures[1],)] if vlm.is_multimodal else [(), ()]
        rows = [
            encode_row(vlm, ScoreRequest(Prefix(one, "Is there a spoon?"), ("Yes.", "No, there is no spoon.")))
            for one in images
        ]
        return measure(plain, vlm, rows, plain.proof.reference)


def table_of(rows: dict[str, dict[str, Any]]) -> str:
    """The table of the docs."""
    lines = ["| type | way | hidden image tokens | log-probs (nats) | gradients | rows |", "| --- " * 6 + "|"]
    for name, row in sorted(rows.items()):
        limit = f"alone beyond {row['limit']:,} tokens" if row.get("limit") else "of any length"
        hiding = row["hiding"] or "not possible"
        lines.append(
            f"| `{name}` | {row['way']} | {hiding} | {row['log_probs']:.0e} | {row['gradients']:.0e} | {limit} |"
        )
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = json.loads(TABLE.read_text()) if TABLE.is_file() else {}
    wanted = names or [*families.FAMILIES, *(name for name in ZOO if ZOO[name].model_type == "")]
    for name in wanted:
        rows[name] = measure_family(name) if name in families.FAMILIES else measure_type(name)
        print(name, rows[name], flush=True)
        TABLE.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + table_of(rows) + "\n" + END + rest.partition(END)[2], encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
