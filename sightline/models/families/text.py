"""Chat models without eyes: K answers on a text prefix."""

from sightline.models.families.base import Family


class Text(Family):
    """A causal language model; prefixes have no images."""

    projector = None
