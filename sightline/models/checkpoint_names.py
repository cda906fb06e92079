"""Weight names on disk: those of the published checkpoints, which Transformers and inference servers both read.

Since Transformers 5.6 the classes of CLIP and SigLIP towers have no level `vision_model`, and a model that was saved
without it is saved without it again. vLLM's classes still have the level and refuse such a file. `from_pretrained`
takes either form, so what is saved here always has it. Nothing here reads or writes a file.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import PrefixChange

#: The level that published checkpoints have inside a vision tower, and the classes of Transformers do not.
TOWER_LEVEL = "vision_model"


@contextlib.contextmanager
def published_names(model: Any) -> Iterator[None]:
    """Inside, `model.save_pretrained` names the weights of a vision tower as published checkpoints do."""
    known = getattr(model, "_weight_conversions", None)
    mapping = get_model_conversion_mapping(model, add_legacy=False)
    # All names of the class, and not those alone that the file had which the model was opened from: a head that was
    # untied since is in no such file. A prefix change is kept where the file needed it.
    names = [each for each in mapping if not isinstance(each, PrefixChange)]
    prefixes = [each for each in known or () if isinstance(each, PrefixChange) and not _is_tower_level(each)]
    model._weight_conversions = [*names, *prefixes, *filter(_is_tower_level, mapping)]
    try:
        yield
    finally:
        model._weight_conversions = known


def _is_tower_level(conversion: Any) -> bool:
    """Whether a conversion drops the level of a tower inside the model; a tower on its own has no such level."""
    is_level = isinstance(conversion, PrefixChange) and conversion.prefix_to_remove == TOWER_LEVEL
    return is_level and bool(conversion.scope_prefix)
