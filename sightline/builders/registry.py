"""Builders of preference pairs by name, with what each needs; a builder is imported only when it is used."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sightline.errors import InputError
from sightline.registry import Entry, Registry

if TYPE_CHECKING:
    from sightline.builders.builder import Builder

MODEL, REFERENCE, JUDGE, WRITER = "model", "reference", "judge", "writer"
#: What only a model in this process can give, beside whole answers.
HIDDEN, CONTINUED, LOGPS = "hidden image tokens", "continued texts", "log-probs"
INSIDES = (HIDDEN, CONTINUED, LOGPS)


@dataclass(frozen=True)
class BuilderEntry(Entry):
    """Where a builder is, its line of help, and what must be given to it.

    `needs` are words out of model, reference, judge, writer, and out of `INSIDES`; with a default config. `most` is the
    largest number of pairs it makes of one sample, for plans: a number, or the config key that holds it (1 where the
    config leaves it out). None where only the samples decide. `answers` is the same for the whole answers that it
    samples of one prompt, for the estimate of a server's costs.
    """

    needs: tuple[str, ...] = (MODEL,)
    most: int | str | None = None
    answers: int | str | None = None

    @property
    def needs_model(self) -> bool:
        """Whether it works with the model that is to be aligned."""
        return MODEL in self.needs

    @property
    def insides(self) -> tuple[str, ...]:
        """What it needs of a model that a server cannot give."""
        return tuple(need for need in self.needs if need in INSIDES)


def _foreign(target: str, origin: str) -> BuilderEntry:
    return BuilderEntry(target, f"From {origin}.")


_HERE = "sightline.builders"
BUILDERS: Registry[BuilderEntry] = Registry(
    "builder",
    "sightline.builders",
    _foreign,
    {
        "bdhs": BuilderEntry(
            f"{_HERE}.bdhs:BDHS",
            "Hide the image, let the model continue the reference (BDHS).",
            (MODEL, REFERENCE, HIDDEN, CONTINUED),
            1,
        ),
        "corrupted": BuilderEntry(
            f"{_HERE}.rewriting:CORRUPTED", "A writer puts mistakes into the reference (POVID).", (WRITER, REFERENCE), 1
        ),
        "claims": BuilderEntry(
            f"{_HERE}.claims:CLAIMS",
            "Check each claim of several answers, yes or no (RLAIF-V).",
            (MODEL, JUDGE, LOGPS),
            answers="answers",
        ),
        "altered": BuilderEntry(
            f"{_HERE}.rewriting:ALTERED",
            "A writer alters one phrase of the reference (HALVA).",
            (WRITER, REFERENCE),
            "twins",
        ),
        "corrected": BuilderEntry(
            f"{_HERE}.rewriting:CORRECTED", "A writer corrects the model's own answer (RLHF-V).", (MODEL, WRITER), 1, 1
        ),
        "beam": BuilderEntry(
            f"{_HERE}.beam:BEAM",
            "Search sentence by sentence for the best and worst answer (CSR).",
            (MODEL, JUDGE, CONTINUED, LOGPS),
            1,
        ),
        "correctness": BuilderEntry(
            f"{_HERE}.correctness:CORRECTNESS",
            "Pair right answers with wrong ones (MPO).",
            (MODEL, REFERENCE),
            answers="samples",
        ),
        "dropout-ntp": BuilderEntry(
            f"{_HERE}.dropout_ntp:DROPOUT_NTP",
            "Complete half an answer without the image (MPO).",
            (MODEL, CONTINUED),
            1,
        ),
        "ranked": BuilderEntry(
            f"{_HERE}.ranked:RANKED",
            "A judge grades several answers, paired by grade (VLFeedback).",
            (MODEL, JUDGE),
            answers="answers",
        ),
        "conditioned": BuilderEntry(
            f"{_HERE}.conditioned:CONDITIONED", "Stated wishes decide the label (MetaAlign).", (WRITER, REFERENCE)
        ),
        "weakened": BuilderEntry(
            f"{_HERE}.corrupted_image:WEAKENED", "Corrupt the image or the prompt (BPO, SeVa, STIC).", (MODEL,), 1, 2
        ),
        "distorted": BuilderEntry(
            f"{_HERE}.distorted:DISTORTED",
            "Redraw the reference's tokens under a noised image (POVID).",
            (MODEL, REFERENCE, LOGPS),
            1,
        ),
    },
)


def get_builder(name: str) -> "Builder[Any]":
    """The builder of that name.

    Raises:
        InputError: there is none; the nearest name is suggested.
    """
    return cast("Builder[Any]", BUILDERS.load(name))


def get_entry(name: str) -> BuilderEntry:
    """What is known of a builder without importing it; errors as `get_builder`."""
    return BUILDERS.entry(name)


def check_server(name: str) -> None:
    """Whether a server may take the model's place.

    Raises:
        InputError: the builder needs more than whole answers, or no model at all.
    """
    entry = BUILDERS.get(name)
    if entry is None:
        return
    if entry.insides:
        raise InputError(
            f"pairs {name} needs {' and '.join(entry.insides)} of a model in this process, which a server does not "
            "offer; give --model instead of --endpoint"
        )
    if not entry.needs_model:
        raise InputError(
            f"pairs {name} samples no model; a writer or judge has a server of its own: leave out --endpoint"
        )
