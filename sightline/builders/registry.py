"""The names of builders and where each is, resolved only when one is asked for.

An entry is "package.module:builder", the `Builder` that its file defines, with the line that help shows before anything
is imported.
"""

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from sightline.errors import InputError

if TYPE_CHECKING:
    from sightline.builders.builder import Builder


class BuilderEntry(NamedTuple):
    """Where a builder is, its line of help, and whether it works with the model that is to be aligned.

    `most` is how many pairs it makes of one sample at most, for plans: a number, or the config key that holds it (1
    where the config leaves it out). None where only the samples decide.
    """

    place: str
    help: str
    needs_model: bool = True
    most: int | str | None = None


BUILDERS: dict[str, BuilderEntry] = {
    "bdhs": BuilderEntry(
        "sightline.builders.bdhs:BDHS", "Hide the picture, let the model go on from the reference (BDHS).", most=1
    ),
    "corrupted": BuilderEntry(
        "sightline.builders.rewriting:CORRUPTED", "Let a writer put mistakes into the reference (POVID).", False, most=1
    ),
    "claims": BuilderEntry(
        "sightline.builders.claims:CLAIMS", "Ask about every claim of several answers, yes or no (RLAIF-V)."
    ),
    "altered": BuilderEntry(
        "sightline.builders.rewriting:ALTERED",
        "Let a writer alter one phrase of the reference (HALVA).",
        False,
        most="twins",
    ),
    "corrected": BuilderEntry(
        "sightline.builders.rewriting:CORRECTED", "Let a writer mend the model's own answer (RLHF-V).", most=1
    ),
    "beam": BuilderEntry(
        "sightline.builders.beam:BEAM", "Search sentence by sentence for the best and the worst answer (CSR).", most=1
    ),
    "correctness": BuilderEntry(
        "sightline.builders.correctness:CORRECTNESS", "Pair right answers with wrong ones (MPO)."
    ),
    "dropout-ntp": BuilderEntry(
        "sightline.builders.dropout_ntp:DROPOUT_NTP", "Go on from half an answer without picture (MPO).", most=1
    ),
    "ranked": BuilderEntry(
        "sightline.builders.ranked:RANKED", "Let a judge grade several answers and pair them (VLFeedback)."
    ),
    "conditioned": BuilderEntry(
        "sightline.builders.conditioned:CONDITIONED", "Let stated wishes decide the label (MetaAlign).", False
    ),
    "graded": BuilderEntry(
        "sightline.recipes.curation.graded:GRADED", "Pair graded questions or answers for a reward model.", False
    ),
    "weakened": BuilderEntry(
        "sightline.builders.corrupted_image:WEAKENED", "Spoil the picture or the prompt (BPO, SeVa, STIC).", most=1
    ),
    "distorted": BuilderEntry(
        "sightline.builders.distorted:DISTORTED", "Redraw the reference under a noised picture (POVID).", most=1
    ),
}


def get_builder(name: str) -> "Builder[Any]":
    """The builder of that name; an InputError names the nearest spelling where there is none."""
    module, _, attribute = get_entry(name).place.partition(":")
    return cast("Builder[Any]", getattr(import_module(module), attribute))


def get_entry(name: str) -> BuilderEntry:
    """What is known of a builder without importing it; errors as `get_builder`."""
    if name not in BUILDERS:
        near = get_close_matches(name, BUILDERS, n=1, cutoff=0.0)[0]
        raise InputError(f"there is no builder {name!r}; did you mean {near!r}?")
    return BUILDERS[name]
