"""Models and data sets from the hub as directories of ours: fetched once, by the one command that asks the network.

With HF_HUB_OFFLINE=1 only the hub's cache on this machine is asked. What the files mean is `formats`; models are opened
by the room `models`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from sightline.config import Config
from sightline.errors import InputError
from sightline.records.manifest import MANIFEST, Manifest, Stage
from sightline.records.store import link_or_copy

Type = Literal["model", "dataset"]
#: OWNER/NAME, as models and data sets are called on the hub.
HUB_NAME = r"[\w.-]+/[\w.-]+"
#: Weights that are no safetensors: pickles, and other frameworks'. A model is opened from safetensors alone.
LEFT_OUT = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*")


class FetchConfig(Config):
    """What is fetched; `revision` is a branch, a tag or a commit, by default the main branch of that day."""

    type: Type
    hub: str = Field(pattern=HUB_NAME)
    revision: str | None = None


def fetch(config: FetchConfig, out: Path) -> Manifest:
    """Fill `out` with the files of a model or a data set; they are links into the hub's cache where that is possible.

    The manifest's warnings say at which commit they were fetched.

    Raises:
        InputError: there is no such repository, it cannot be reached, or it holds no file that is wanted.
    """
    # Before the directory is claimed: after a mistake the same one can be given.
    snapshot = _snapshot(config) if not (out / MANIFEST).exists() else None
    stage = Stage.open(out, f"fetch {config.type}", config, {})
    if stage.done:
        return stage.manifest
    snapshot = snapshot or _snapshot(config)
    found = [path for path in sorted(snapshot.rglob("*")) if path.is_file() and not _is_hidden(path, snapshot)]
    if not found:
        raise InputError(f"{config.hub} holds no files that are wanted; is it a {config.type}?")
    for path in found:
        link_or_copy(path, out / path.relative_to(snapshot))
    size = sum(path.stat().st_size for path in found)
    told = (f"{config.hub} was fetched at commit {snapshot.name}",)
    return stage.finish(counts={"files": len(found)}, numbers={"bytes": float(size)}, warnings=told)


def _snapshot(config: FetchConfig) -> Path:
    from huggingface_hub import snapshot_download  # here, since it takes a second to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    leave = list(LEFT_OUT) if config.type == "model" else None
    try:
        return Path(
            snapshot_download(config.hub, repo_type=config.type, revision=config.revision, ignore_patterns=leave)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{config.type} {config.hub} cannot be fetched ({reason}); check the name, the network and HF_HUB_OFFLINE,"
            " or name a directory of your own"
        ) from error


def _is_hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)
