"""What differs between the supported versions of Transformers; no other module asks for a version."""

from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from sightline.errors import InputError
from sightline.records.store import read_json


def set_activation_checkpointing(model: Any, *, enabled: bool) -> None:
    """Make the layers of a Transformers model keep their inputs alone and recompute the rest for the gradient, or not.

    Older versions of Transformers call this gradient checkpointing.
    """
    kind = "activation" if hasattr(model, "activation_checkpointing_enable") else "gradient"
    getattr(model, f"{kind}_checkpointing_{'enable' if enabled else 'disable'}")()


def recomputes_activations(model: Any) -> bool:
    """Whether the layers of a Transformers model recompute their activations for the gradient."""
    kind = "activation" if hasattr(model, "is_activation_checkpointing") else "gradient"
    return bool(getattr(model, f"is_{kind}_checkpointing"))


def require_known_type(directory: Path) -> None:
    """Raise InputError if a checkpoint has a model type that the installed Transformers does not know.

    A checkpoint that includes the code of its model is not looked at.
    """
    path = directory / "config.json"
    config = read_json(path) if path.is_file() else None
    if not isinstance(config, dict) or "auto_map" in config:
        return
    kind = config.get("model_type")
    if isinstance(kind, str) and kind not in CONFIG_MAPPING:
        raise InputError(
            f"{directory} has the model type {kind!r}, which Transformers {transformers.__version__} does not know; "
            "install a newer version (pip install --upgrade transformers)"
        )
