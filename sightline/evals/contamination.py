"""Does a benchmark ask about what the model was trained on?: shared pictures and questions, counted and said.

It compares with the record that training leaves beside its adapter (`data.fingerprint`) and opens no model. A shared
picture is no proof of a leak, but a number on it needs the caveat.
"""

from collections.abc import Sequence
from pathlib import Path

from sightline.data.fingerprint import FINGERPRINT, Fingerprint, question_digest, read_fingerprint
from sightline.records.rows import Row, Sample


class Leaks(Row):
    """Pictures and questions of a benchmark, and how many of them the training pairs had too.

    A question that the benchmark asks about several pictures ("Describe the image.") is nobody's secret and not
    counted.
    """

    pictures: int
    shared_pictures: int
    questions: int
    shared_questions: int

    def sentence(self, benchmark: str) -> str | None:
        """The warning; None where nothing is shared."""
        shared = [
            f"{found} of {all_} {what}"
            for found, all_, what in (
                (self.shared_pictures, self.pictures, "pictures"),
                (self.shared_questions, self.questions, "questions"),
            )
            if found
        ]
        if not shared:
            return None
        return f"{benchmark}: {' and '.join(shared)} are in the training pairs too; its numbers may flatter the model"


def trained_on(*weights: Path | None) -> Fingerprint | None:
    """What training kept beside an adapter or a model, the first that has it; None where none has."""
    folders = [folder for place in weights if place is not None for folder in (place, place.parent)]
    kept = [folder / FINGERPRINT for folder in folders if (folder / FINGERPRINT).is_file()]
    return read_fingerprint(kept[0]) if kept else None


def find_leaks(samples: Sequence[Sample], folder: Path, seen: Fingerprint) -> Leaks:
    """What samples, whose image paths are relative to `folder`, share with the training rows."""
    pictures = {folder / image for sample in samples for image in sample.images}
    about: dict[int, set[tuple[str, ...]]] = {}
    for sample in samples:
        about.setdefault(question_digest(sample.prompt), set()).add(sample.images)
    own = [question for question, of in about.items() if len(of) == 1]
    return Leaks(
        pictures=len(pictures),
        shared_pictures=sum(seen.has_picture(path) for path in pictures),
        questions=len(own),
        shared_questions=sum(question in seen.questions for question in own),
    )
