"""`sightline export model`: model and adapter -> one checkpoint directory with card, checksums and a reload check.

The adapter is merged in float32, must score like model and adapter, and is rounded once. The saved files are reopened
with plain Transformers and must score the same; the effect of rounding is measured and reported.
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
from sightline.apps.export.check import LogpDistance, logp_distance, probe_logps, reload_saved, save_probes
from sightline.apps.export.config import ExportModelConfig
from sightline.apps.export.quantized import Bits, pack, quantize, require_quantizer, write_quantization
from sightline.errors import InputError
from sightline.models.adapters import save_model
from sightline.models.loading import DTYPES, no_progress_bars
from sightline.models.merging import merge_adapter
from sightline.models.opening import open_model
from sightline.models.requests import ScoreRequest
from sightline.models.spec import ModelSpec, to_spec
from sightline.models.tensor_cache import ByteLRU
from sightline.models.vlm import VLM
from sightline.records.hashing import hash_file
from sightline.records.manifest import MANIFEST, Manifest, Stage, StageInput
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
    model: ModelSpec | str | Path, out: Path, config: ExportModelConfig, adapter: Path | None, request: ExportRequest
) -> Manifest:
    """Write the model to `out`; the manifest's numbers give its distance from the float32 model.

    The files are written to a hidden folder in `out`, reopened there, and moved into `out` after the check. A model
    that fails the check is removed.

    Raises:
        InputError: the model, the adapter or a quoted directory is invalid, a package is missing, the merged model
            does not compute what model and adapter compute, or the saved files score differently when reopened.
    """
    if config.weights in _BITS:
        require_quantizer()
    spec = to_spec(model)
    if spec.quantize != "none":
        raise InputError(
            f"quantize={spec.quantize}: a quantized model cannot be merged; set weights=int4 or int8 instead"
        )
    adapter = adapter or spec.adapter
    # Merged in float32 and rounded once; by default on the CPU, whose memory holds float32 weights.
    device = "cpu" if spec.device == "auto" else spec.device
    spec = spec.with_options({"adapter": adapter, "dtype": "float32", "device": device})
    origins = read_origins(spec.place, adapter, request.train, request.pairs, request.evaluations, request.report)
    is_new = not (out / MANIFEST).exists()
    vlm = open_model(spec) if is_new else None  # before claiming the directory
    stage = Stage.open(out, "export model", config, _inputs(spec, request))
    if stage.done:
        return stage.manifest
    vlm = vlm or open_model(spec)
    with _staging_folder(out) as folder, tempfile.TemporaryDirectory() as pictures, no_progress_bars():
        reloaded, changed = _write(vlm, config, folder, save_probes(Path(pictures), is_multimodal=vlm.is_multimodal))
        for path in folder.iterdir():
            path.replace(out / path.name)
    return _finish(stage, origins, reloaded, changed)


@contextlib.contextmanager
def _staging_folder(out: Path) -> Iterator[Path]:
    """A temporary folder for unchecked files; it is always deleted at the end."""
    folder = out / UNCHECKED
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(
    vlm: VLM, config: ExportModelConfig, folder: Path, probes: Sequence[ScoreRequest]
) -> tuple[LogpDistance, LogpDistance]:
    """Merge, round and save; returns the saved model's distance from the rounded model, and from the float32 model."""
    before = probe_logps(vlm, probes)
    if isinstance(vlm.model, PeftModel):
        vlm = replace(vlm, model=merge_adapter(vlm.model), prefixes=ByteLRU())
        _require(logp_distance(probe_logps(vlm, probes), before), config, "the merged model", "model and adapter")
    dtype = DTYPES[config.weights if config.weights in DTYPES else "bfloat16"]
    vlm = replace(_round_weights(vlm, dtype), prefixes=ByteLRU())
    quantization = quantize(vlm, cast(Bits, _BITS[config.weights])) if config.weights in _BITS else None
    meant = probe_logps(vlm, probes)
    if quantization is not None:
        pack(vlm)
    save_model(vlm, folder)
    if quantization is not None:
        write_quantization(folder, quantization)
    found = probe_logps(reload_saved(folder, vlm), probes)
    reloaded = logp_distance(found, meant)
    _require(reloaded, config, "the saved model, reopened with Transformers,", "the model before saving")
    return reloaded, logp_distance(found, before)


def _require(distance: LogpDistance, config: ExportModelConfig, one: str, other: str) -> None:
    """Raise InputError where two models are further apart than the tolerance, or NaN."""
    if not distance.largest <= config.tolerance:
        raise InputError(
            f"{one} differs by {distance.largest:.3g} nats on a token from {other}; the tolerance is "
            f"{config.tolerance:g}. Nothing was saved: serve model and adapter separately, or raise tolerance"
        )


def write_sums(directory: Path) -> int:
    """Write `SHA256SUMS` (for `sha256sum -c`) over all files but itself and the manifest; returns their number."""
    names = sorted(
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.name not in (SUMS, MANIFEST) and not path.name.startswith(".")
    )
    with atomic_write(directory / SUMS) as temporary:
        temporary.write_text("".join(f"{hash_file(directory / name)}  {name}\n" for name in names), encoding="utf-8")
    return len(names)


def _finish(stage: Stage, origins: Origins, reloaded: LogpDistance, changed: LogpDistance) -> Manifest:
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


def _round_weights(vlm: VLM, dtype: torch.dtype) -> VLM:
    """Round the parameters only: buffers, such as rotary frequencies, are rebuilt in float32 on loading."""
    for weight in vlm.model.parameters():
        weight.data = weight.data.to(dtype)
    return replace(vlm, dtype=dtype)


def _inputs(spec: ModelSpec, request: ExportRequest) -> dict[str, StageInput]:
    named = {"train": request.train, "pairs": request.pairs, "report": request.report}
    named |= {f"eval-{number}": path for number, path in enumerate(request.evaluations)}
    return spec.inputs() | {name: path for name, path in named.items() if path is not None}
