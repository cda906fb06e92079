"""`sightline export model`: model and adapter -> one directory that others open, with card, checksums and a check.

The sum is made in float32, must score as model and adapter do, and is rounded once. What is written is opened again by
plain Transformers and must score as it was meant to; what rounding changed is measured and told.
"""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel

from sightline.apps.export.card import CARD, Origins, read_origins, write_card
from sightline.apps.export.check import Apart, apart, logps_of, reopened, save_probes
from sightline.apps.export.config import ExportModelConfig
from sightline.apps.export.quantized import Bits, pack, quantize, require_quantizer, write_quantization
from sightline.errors import InputError
from sightline.models.adapters import save_model
from sightline.models.loading import DTYPES, load_vlm, no_progress_bars
from sightline.models.merging import merge_adapter
from sightline.models.requests import ScoreRequest
from sightline.models.tensor_cache import ByteLRU
from sightline.models.vlm import VLM
from sightline.records.hashing import hash_file
from sightline.records.manifest import MANIFEST, Manifest, Stage
from sightline.records.store import atomic_write, write_json

SUMS, CHECK, UNCHECKED = "SHA256SUMS", "export.json", ".unchecked"
_BITS = {"int8": 8, "int4": 4}


@dataclass(frozen=True)
class ExportRequest:
    """Directories that the card quotes: of training, pairs, evaluations and a report."""

    train: Path | None = None
    pairs: Path | None = None
    evaluations: Sequence[Path] = ()
    report: Path | None = None


def export_model(
    model: Path, out: Path, config: ExportModelConfig, adapter: Path | None, told: ExportRequest
) -> Manifest:
    """Write the model to `out`; the manifest's numbers say how far it is from the model in float32.

    The files are written to a hidden folder in `out`, opened again there, and moved into `out` once the model has
    scored as it should. A model that fails the check is removed.

    Raises:
        InputError: what the model, the adapter or a quoted directory refuse, a package that is missing, a merged
            model that does not compute what model and adapter compute, or saved files that do not score as they
            should when they are opened again.
    """
    if config.weights in _BITS:
        require_quantizer()
    origins = read_origins(model, adapter, told.train, told.pairs, told.evaluations, told.report)
    is_new = not (out / MANIFEST).exists()
    vlm = load_vlm(model, adapter=adapter) if is_new else None  # before the directory is claimed
    stage = Stage.open(out, "export model", config, _inputs(model, adapter, told))
    if stage.done:
        return stage.manifest
    vlm = vlm or load_vlm(model, adapter=adapter)
    with _unchecked(out) as folder, tempfile.TemporaryDirectory() as pictures, no_progress_bars():
        reloaded, changed = _write(vlm, config, folder, save_probes(Path(pictures), is_multimodal=vlm.is_multimodal))
        for path in folder.iterdir():
            path.replace(out / path.name)
    return _finish(stage, origins, reloaded, changed)


@contextlib.contextmanager
def _unchecked(out: Path) -> Iterator[Path]:
    """A folder for files that nobody may take for the result; it is gone in the end, whatever happens."""
    folder = out / UNCHECKED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(vlm: VLM, config: ExportModelConfig, folder: Path, probes: Sequence[ScoreRequest]) -> tuple[Apart, Apart]:
    """Merge, round and save; how far the saved model is from what was meant, and from the model in float32."""
    before = logps_of(vlm, probes)
    if isinstance(vlm.model, PeftModel):
        vlm = replace(vlm, model=merge_adapter(vlm.model), prefixes=ByteLRU())
        _require(apart(logps_of(vlm, probes), before), config, "the merged model", "model and adapter")
    dtype = DTYPES[config.weights if config.weights in DTYPES else "bfloat16"]
    vlm = replace(_rounded(vlm, dtype), prefixes=ByteLRU())
    quantization = quantize(vlm, cast(Bits, _BITS[config.weights])) if config.weights in _BITS else None
    meant = logps_of(vlm, probes)
    if quantization is not None:
        pack(vlm)
    save_model(vlm, folder)
    if quantization is not None:
        write_quantization(folder, quantization)
    found = logps_of(reopened(folder, vlm), probes)
    reloaded = apart(found, meant)
    _require(reloaded, config, "the saved model, opened again by Transformers,", "what was written")
    return reloaded, apart(found, before)


def _require(distance: Apart, config: ExportModelConfig, one: str, other: str) -> None:
    """Raise InputError where two models are further apart than the tolerance, or NaN."""
    if not distance.largest <= config.tolerance:
        raise InputError(
            f"{one} scores {distance.largest:.3g} nats a token apart from {other}, and tolerance is "
            f"{config.tolerance:g}; nothing was kept. Serve model and adapter apart, or set tolerance"
        )


def write_sums(directory: Path) -> int:
    """Write `SHA256SUMS`, which `sha256sum -c` reads, over all files but itself and the manifest; how many."""
    names = sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in (SUMS, MANIFEST) and not path.name.startswith(".")
    )
    with atomic_write(directory / SUMS) as temporary:
        temporary.write_text("".join(f"{hash_file(directory / name)}  {name}\n" for name in names), encoding="utf-8")
    return len(names)


def _finish(stage: Stage, origins: Origins, reloaded: Apart, changed: Apart) -> Manifest:
    out = stage.directory
    config = ExportModelConfig.model_validate(stage.manifest.config)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    numbers = {
        "reloaded_largest": reloaded.largest,
        "reloaded_mean": reloaded.mean,
        "changed_largest": changed.largest,
        "changed_mean": changed.mean,
        "bytes": float(size),
    }
    write_json(out / CHECK, {"weights": config.weights, "reloaded": asdict(reloaded), "changed": asdict(changed)})
    write_card(out / CARD, config, origins, stage.manifest, reloaded, changed, size)
    return stage.finish(counts={"files": write_sums(out), "tokens": changed.tokens}, numbers=numbers)


def _rounded(vlm: VLM, dtype: torch.dtype) -> VLM:
    """Weights alone: buffers, such as the frequencies of rotary positions, are made anew in float32 on loading."""
    for weight in vlm.model.parameters():
        weight.data = weight.data.to(dtype)
    return replace(vlm, dtype=dtype)


def _inputs(model: Path, adapter: Path | None, told: ExportRequest) -> dict[str, Path]:
    named = {"model": model, "adapter": adapter, "train": told.train, "pairs": told.pairs, "report": told.report}
    named |= {f"eval-{number}": path for number, path in enumerate(told.evaluations)}
    return {name: path for name, path in named.items() if path is not None}
