"""Contamination check: images and questions that a benchmark shares with the training data.

The benchmark is compared with the fingerprint that training writes beside its adapter (`data.fingerprint`); no model
is loaded. A shared image does not prove a leak, but a metric on it needs the caveat.
"""

from collections.abc import Sequence
from pathlib import Path

from sightline.data.fingerprint import FINGERPRINT, Fingerprint, question_digest, read_fingerprint
from sightline.records.rows import Row, Sample


class Contamination(Row):
    """Images and questions of a benchmark, and how many of them are in the training pairs too.

    Generic questions, which the benchmark asks about several images ("Describe the image."), are not counted.
    """

    pictures: int
    shared_pictures: int
    questions: int
    shared_questions: int

    def warning(self, benchmark: str) -> str | None:
        """The warning; None where nothing is shared."""
        shared = [
            f"{found} of {total} {unit}"
            for found, total, unit in (
                (self.shared_pictures, self.pictures, "pictures"),
                (self.shared_questions, self.questions, "questions"),
            )
            if found
        ]
        if not shared:
            return None
        return f"{benchmark}: {' and '.join(shared)} are in the training pairs too; its numbers may flatter the model"


def training_fingerprint(*weights: Path | None) -> Fingerprint | None:
    """The fingerprint beside the first adapter or model that has one; None where none has."""
    folders = [folder for place in weights if place is not None for folder in (place, place.parent)]
    kept = [folder / FINGERPRINT for folder in folders if (folder / FINGERPRINT).is_file()]
    return read_fingerprint(kept[0]) if kept else None


def find_contamination(samples: Sequence[Sample], folder: Path, seen: Fingerprint) -> Contamination:
    """Count the images and questions that samples share with the training rows; images are relative to `folder`."""
    pictures = {folder / image for sample in samples for image in sample.images}
    about: dict[int, set[tuple[str, ...]]] = {}
    for sample in samples:
        about.setdefault(question_digest(sample.prompt), set()).add(sample.images)
    own = [question for question, of in about.items() if len(of) == 1]
    return Contamination(
        pictures=len(pictures),
        shared_pictures=sum(seen.has_picture(path) for path in pictures),
        questions=len(own),
        shared_questions=sum(question in seen.questions for question in own),
    )
