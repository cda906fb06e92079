"""Models and data sets from the hub as directories of ours: fetched once, by the one command that asks the network.

With HF_HUB_OFFLINE=1 only the hub's cache on this machine is asked. What the files mean is `formats`; models are opened
by the room `models`.
"""

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
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
    notes = (f"{config.hub} was fetched at commit {snapshot.name}",)
    return stage.finish(counts={"files": len(found)}, numbers={"bytes": float(size)}, warnings=notes)


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


#: NAME==VERSION.
PACKAGE = r"^[A-Za-z0-9][\w.-]*==[\w.!+-]+$"
_PATIENCE = 1800  # seconds for one download


class PackageConfig(Config):
    """What is fetched. `inside` is a folder of it, whose files then lie at the top; `source` wants the source archive.

    A source archive's own top folder, NAME-VERSION, is left out of `inside`.
    """

    type: Literal["package"] = "package"
    package: str = Field(pattern=PACKAGE)
    source: bool = False
    inside: str | None = None


def fetch_package(config: PackageConfig, out: Path) -> Manifest:
    """Fill `out` with the files of a package.

    Raises:
        InputError: it is neither installed nor to be had by pip, or has no such folder.
    """
    if (out / MANIFEST).exists():
        stage = Stage.open(out, "fetch package", config, {})
        if stage.done:
            return stage.manifest
    with _files_of(config) as (root, names):
        below = root / (config.inside or "")
        found = [root / name for name in names if (root / name).is_relative_to(below)]
        if not found:
            folders = ", ".join(dict.fromkeys(name.parts[0] for name in names if len(name.parts) > 1)) or "none"
            raise InputError(f"{config.package} holds no files in {config.inside or 'it'}; its folders are: {folders}")
        if not (out / MANIFEST).exists():  # only now, so that after a mistake the same directory can be given
            stage = Stage.open(out, "fetch package", config, {})
        for path in found:
            link_or_copy(path, out / path.relative_to(below))
        size = sum(path.stat().st_size for path in found)
    return stage.finish(counts={"files": len(found)}, numbers={"bytes": float(size)})


@contextmanager
def _files_of(config: PackageConfig) -> Iterator[tuple[Path, list[Path]]]:
    """A folder with the package's files, for a while, and their names in it."""
    installed = None if config.source else _installed(config.package)
    if installed is not None:
        yield installed
        return
    with tempfile.TemporaryDirectory() as folder:
        archive = _download(config, Path(folder))
        root = Path(folder) / "files"
        try:
            if archive.suffix == ".whl":
                with zipfile.ZipFile(archive) as wheel:
                    wheel.extractall(root)  # which leaves no name outside of it
            else:
                with tarfile.open(archive) as packed:
                    packed.extractall(root, filter="data")
        except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise InputError(f"the archive of {config.package} is damaged ({error}); fetch it again") from error
        tops = list(root.iterdir())
        top = tops[0] if archive.suffix != ".whl" and len(tops) == 1 and tops[0].is_dir() else root
        yield top, [path.relative_to(top) for path in sorted(top.rglob("*")) if path.is_file()]


def _installed(package: str) -> tuple[Path, list[Path]] | None:
    """Where a package of exactly that version is installed, and its files there."""
    name, _, version = package.partition("==")
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    root = Path(str(found.locate_file("")))
    names = sorted(Path(name) for name in found.files or () if ".." not in name.parts and (root / name).is_file())
    return (root, names) if found.version == version and names else None


def _download(config: PackageConfig, folder: Path) -> Path:
    """The archive, by pip. Without isolation a source archive is not built for, only asked for its name."""
    kind = ["--no-binary", ":all:", "--no-build-isolation"] if config.source else ["--only-binary", ":all:"]
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", *kind]
    try:
        done = subprocess.run(
            [*words, "--dest", str(folder), config.package],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        errors = [line for line in done.stderr.splitlines() if "ERROR" in line]
        problem = errors[-1] if errors else f"pip ended with code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        problem, done = str(error), None
    found = [path for path in folder.iterdir() if path.is_file()]
    if done is None or done.returncode or len(found) != 1:
        raise InputError(
            f"package {config.package} is not installed and pip cannot fetch it ({problem}); check name, version and "
            "network"
        )
    return found[0]
