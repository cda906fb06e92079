"""Idefics3 and SmolVLM: tiles of one picture; the module between vision and language has another name."""

from sightline.models.families.base import Family


class Idefics(Family):
    """Nothing but the name differs: the processor spells out rows and columns of the tiles as text."""

    projector = "connector"
