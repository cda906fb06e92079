"""The one place that opens a model for commands, configs and Python: from a `ModelSpec` to a `VLM`."""

from pathlib import Path

from sightline.models.device import resolve_device, resolve_dtype
from sightline.models.loading import load_vlm
from sightline.models.spec import ModelSpec, to_spec
from sightline.models.tensor_cache import TensorCache, open_cache
from sightline.models.vlm import VLM


def open_model(model: ModelSpec | str | Path, *, cache: TensorCache | None = None, weights: bool = True) -> VLM:
    """Open a model in evaluation mode with all weights frozen.

    A name alone opens it on a GPU if there is one, in the checkpoint's number format there and in float32 on a CPU.
    `cache` keeps image features; None is the cache of this machine ($SIGHTLINE_CACHE). `weights` as `load_vlm`.

    Raises:
        InputError: there is no such model or adapter, it cannot be opened, or an option does not fit the model or the
            machine.
    """
    spec = to_spec(model)
    place, device = spec.place, resolve_device(spec.device)
    dtype = resolve_dtype(spec.dtype, device, place)
    return load_vlm(
        place,
        adapter=spec.adapter,
        device=device,
        dtype=dtype,
        options=spec,
        cache=open_cache() if cache is None else cache,
        weights=weights,
    )


def resolve_spec(model: ModelSpec | str | Path) -> ModelSpec:
    """The record with device and dtype as they are on this machine, for configs and manifests that name them."""
    spec = to_spec(model)
    device = resolve_device(spec.device)
    return spec.with_options({"device": device, "dtype": resolve_dtype(spec.dtype, device, spec.place)})
