"""The single pass over a dataset: inspect each row alone, put its facts into `columns` and findings into the database.

Memory holds a block of rows, the columns, and the pairs drawn for the measures. `repeats` and `overlap` compare rows
afterwards.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sightline.check.columns import ImageColumns, RowColumns, sketch
from sightline.check.findings import CHECKS
from sightline.check.findings_db import FindingsDb
from sightline.check.image_facts import ImageFacts, InspectAll
from sightline.check.row_reader import RawRow, RowImage
from sightline.config.problems import brief, shorten
from sightline.data.images import coco_id, image_path, link_target_outside
from sightline.data.texts import digest, normalize
from sightline.data.turns import messages
from sightline.errors import InputError
from sightline.records import IMAGE, Pair

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|data:")  # https://..., s3://..., data:image/png;base64,...
_FIGURES = re.compile(r"[\d|]+")
_MOST = 4_000  # characters of an answer kept for the measures
Findings = list[tuple[str, str]]
#: From a pair, its images' sizes and a function for their files: the model's (check, reason) against it, or None.
Fits = Callable[[Pair, tuple[tuple[int, int], ...], Callable[[], tuple[Path, ...]]], tuple[str, str] | None]


@dataclass(frozen=True)
class DrawnNumbers:
    """Row numbers drawn for the measures of texts, and for the model's."""

    texts: frozenset[int]
    prior: frozenset[int]


@dataclass
class DrawnRows:
    """Drawn data: clusters with both answers (truncated), and whole pairs with their clusters."""

    clusters: list[int] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    prior: list[tuple[int, Pair]] = field(default_factory=list)


@dataclass
class DatasetScan:
    """The pass and its results so far; `add` takes the next block.

    `tolerated` checks do not exclude a row from measures and comparisons, although a cleaned copy cannot hold it.
    """

    directory: Path
    db: FindingsDb
    folder: Path
    inspect_all: InspectAll
    drawn: DrawnNumbers
    fits: Fits | None = None
    tolerated: frozenset[str] = frozenset()
    rows: RowColumns = field(default_factory=RowColumns)
    images: ImageColumns = field(default_factory=ImageColumns)
    sample: DrawnRows = field(default_factory=DrawnRows)
    total: int = 0

    def add(self, block: Sequence[RawRow]) -> None:
        """Scan the next rows."""
        self.total += len(block)
        numbers = self._register(block)
        findings: list[tuple[int, str, str, str]] = []
        for row in block:
            if row.pair is None:
                found = [("row", row.problem)]
            else:
                found = self._inspect(row, row.pair, [numbers[_key(image)] for image in row.images])
            findings += [(row.number, check, "", reason) for check, reason in found]
        self.db.add_places((row.number, row.pair.id if row.pair else "", row.where) for row in block)
        self.db.add_findings(findings)

    def _inspect(self, row: RawRow, pair: Pair, images: list[int]) -> Findings:
        found = row_findings(pair)
        for number, shown in zip(images, row.images, strict=True):
            if self.images.troubled[number]:
                found += [(c, f"{shorten(shown.name)}: {r}") for c, r in self.db.troubles(number)]
        removed = any(CHECKS[check].removes and check not in self.tolerated for check, _ in found)
        if self.fits is not None and not removed and all(self.images.opens[number] for number in images):
            sizes = tuple((self.images.width[number], self.images.height[number]) for number in images)
            problem = self.fits(pair, sizes, lambda: self._paths(row, images))
            if problem is not None:
                found.append(problem)
                removed = True
        self._note(row.number, pair, images, clean=not removed)
        return found

    def _note(self, number: int, pair: Pair, images: list[int], *, clean: bool) -> None:
        """Append a row's numbers to the columns, and keep its texts if it was drawn."""
        turns = [*(turn.text for turn in pair.history), pair.prompt]
        prompt = normalize(" ".join(turns).replace(IMAGE, " "))
        question = normalize(pair.prompt.replace(IMAGE, " ")) if pair.history else prompt
        chosen, rejected = normalize(pair.chosen), normalize(pair.rejected)
        # Normalization may leave nothing of answers such as "<" or ":-)".
        key = (chosen or pair.chosen, rejected or pair.rejected)
        rows = self.rows
        rows.number.append(number)
        rows.ids.append(digest(pair.id))
        rows.texts.append(digest(prompt, *key))
        rows.swapped.append(digest(prompt, *reversed(key)))
        first, second = sketch((prompt, *key))
        rows.sketch.append(first)
        rows.second_sketch.append(second)
        rows.figures.append(digest(*_FIGURES.findall(" | ".join((prompt, *key)))))
        rows.question.append(digest(question))
        rows.clean.append(clean)
        rows.image.extend(images)
        rows.start.append(len(rows.image))
        if not clean:
            return
        cluster = digest(pair.cluster) if pair.cluster else digest(*pair.images, "" if pair.images else pair.id)
        if number in self.drawn.texts:
            self.sample.clusters.append(cluster)
            self.sample.chosen.append(pair.chosen[:_MOST])
            self.sample.rejected.append(pair.rejected[:_MOST])
        if number in self.drawn.prior:
            self.sample.prior.append((cluster, pair))

    def _register(self, block: Sequence[RawRow]) -> dict[str, int]:
        """Return the numbers of all images of a block; new ones are opened together."""
        numbers: dict[str, int] = {}
        fresh: dict[str, tuple[RowImage, Path | bytes | ImageFacts]] = {}
        for row in block:
            for image in row.images:
                key = _key(image)
                if key in numbers or key in fresh:
                    continue
                known = self.db.image(key)
                if known is None:
                    fresh[key] = (image, _source(image, self.directory))
                else:
                    numbers[key] = known
        opened = iter(self.inspect_all([source for _, source in fresh.values() if not isinstance(source, ImageFacts)]))
        named, troubles = [], []
        for key, (image, source) in fresh.items():
            facts = source if isinstance(source, ImageFacts) else next(opened)
            if isinstance(source, Path) and (file := link_target_outside(source, self.directory)) is not None:
                found = ("image-linked", f"a link to {brief(file)}, which is outside of the folder")
                facts = replace(facts, findings=(*facts.findings, found))
            numbers[key] = len(self.images)
            named.append((key, numbers[key]))
            troubles += [(numbers[key], check, reason) for check, reason in facts.findings]
            self.images.add(facts, coco_id(image.name))
        self.db.add_images(named, troubles)
        return numbers

    def _paths(self, row: RawRow, images: list[int]) -> tuple[Path, ...]:
        return tuple(self._path(image, number) for image, number in zip(row.images, images, strict=True))

    def _path(self, image: RowImage, number: int) -> Path:
        """Return a file with the image, for the encoder."""
        if image.data is None:
            return self.directory / image.name
        path = self.folder / f"embedded-{number}"
        if not path.exists():
            path.write_bytes(image.data)
        return path


def row_findings(pair: Pair) -> Findings:
    """Return a row's problems by its texts alone: (check, reason)."""
    return [*_form(pair), *_answers(pair)]


def _form(pair: Pair) -> Iterator[tuple[str, str]]:
    if not pair.id:
        yield "id", "the id is empty"
    try:
        messages(pair.history, pair.prompt, len(pair.images), "the text")
    except InputError as error:
        yield "placeholders", str(error).rpartition(";")[0]
    for column in ("chosen", "rejected"):
        if IMAGE in getattr(pair, column):
            yield "placeholders", f"'{column}' says {IMAGE}"
        if not getattr(pair, column).strip():
            yield "empty", f"'{column}' is empty"
    if not pair.prompt.replace(IMAGE, "").strip():
        yield "empty", "'prompt' is empty"


def _answers(pair: Pair) -> Iterator[tuple[str, str]]:
    chosen = pair.chosen.strip()
    for column in ("rejected", "second_rejected"):
        other = (getattr(pair, column) or "").strip()
        if not chosen or not other:
            continue
        if chosen == other:
            yield "equal", f"'chosen' and '{column}' are the same"
        elif (plain := normalize(chosen)) and plain == normalize(other):
            yield "equal-normalized", f"'chosen' and '{column}' differ in case, punctuation or white space alone"


def _key(image: RowImage) -> str:
    """Key of an image: its name, or, if embedded, its bytes, since embedded names may repeat."""
    if image.data is None:
        return f"name {image.name}"
    return f"bytes {embedded_name(image.data)}"


def embedded_name(data: bytes) -> str:
    """Return the name of an embedded image."""
    return hashlib.sha256(data).hexdigest()[:32]


def _source(image: RowImage, directory: Path) -> Path | bytes | ImageFacts:
    """Return what to open, or the finding if nothing can be opened."""
    if image.data is not None:
        return image.data
    if _REMOTE.match(image.name):
        return ImageFacts(0, findings=(("image-remote", "an address, which is not opened"),))
    try:
        return image_path(directory, image.name, "image")
    except InputError as error:
        empty = "is empty" in str(error)
        return ImageFacts(0, findings=(("image-damaged" if empty else "image-path", _short(error)),))


def _short(error: InputError) -> str:
    return str(error).removeprefix("image: ").rpartition(";")[0]
