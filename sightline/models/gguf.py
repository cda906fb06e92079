"""A language model in one GGUF file, as llama.cpp has them: found in a directory, and made a plain model in memory.

Transformers reads the file (extra `[smol]`); quantized weights become floats and the model is then as any other, so
that it can be trained and saved. Which models are language models is `families`.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sightline.errors import InputError


def gguf_of(path: str | Path) -> Path | None:
    """The GGUF file that a directory holds in the place of a checkpoint.

    Raises:
        InputError: there are several, and no config.json says what else the directory is.
    """
    directory = Path(path)
    if not directory.is_dir() or (directory / "config.json").is_file():
        return None
    found = sorted(directory.glob("*.gguf"))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise InputError(
            f"{path} holds {len(found)} GGUF files ({names}); put the one that is meant into its own folder"
        )
    return found[0] if found else None


def packed_arguments(file: Path | None) -> dict[str, str]:
    """What Transformers must be told to read the file; nothing for a checkpoint.

    Raises:
        InputError: the reader is not installed.
    """
    if file is None:
        return {}
    if find_spec("gguf") is None:
        raise InputError(f"{file} is a GGUF file, which needs: pip install 'sightline[smol]'")
    return {"gguf_file": file.name}


def unpacked(model: Any) -> Any:
    """The model without what says that its weights were packed: they are floats now, and could not be saved else."""
    told = model.config.to_dict()
    told.pop("quantization_config", None)
    plain = type(model)._from_config(type(model.config)(**told), dtype=model.dtype)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain
