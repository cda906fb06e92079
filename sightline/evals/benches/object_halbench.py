"""Object HalBench (Rohrbach et al. 2018, as in RLHF-V, arXiv 2312.00849): detailed descriptions of 300 COCO images.

Objects are listed by a language model and counted by rule (`extracted_objects`); without a model they are found by
synonyms, as in the official script without `--use_gpt`. Recall is the paper's Recall_coco (arXiv 2407.02477). Truth is
read in `coco_objects`; CHAIR itself, with other singulars, is `chair`.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from sightline.errors import InputError
from sightline.evals.benches.chair import DESCRIBE
from sightline.evals.benches.coco_objects import (
    CocoPicture,
    ObjectMention,
    Vocabulary,
    answer_picture,
    halbench_vocabulary,
    picture_key,
    read_truth,
)
from sightline.evals.benches.extracted_objects import (
    has_official_tagger,
    match_objects,
    owners_mentions,
    read_objects,
    read_owners_mentions,
)
from sightline.evals.benches.files import json_lines
from sightline.evals.benches.singular import lemma
from sightline.evals.benchmark import DECIDED_BY_QUIRK, AnyMetric, BenchmarkOptions, Metric, count, mean
from sightline.evals.judging.protocols import Case, Grading, Reading
from sightline.evals.judging.verdicts import Verdicts
from sightline.records.rows import Answer, Sample, Score

#: Answers of at most this many words name no object in the official script, which sends them to no model.
SHORT = 3
_QUESTIONS = ("obj_halbench_300_with_image.jsonl", "obj_halbench_300.jsonl")

_TASK = (
    "Below are a question about a picture and an answer to it. List the things that the answer says are to be seen in"
    " the picture. Take the answer at its word: whether it is true does not matter here.\n\n"
    "Rules:\n"
    "- Name only things that the answer itself names, in its own words; add none, and leave none out.\n"
    "- Name the thing without what is said of it: no color, size, material, number or place.\n"
    "- Leave out what cannot be seen as a thing: moods, weather, actions, and things that the answer says are absent.\n"
    "- Reply with one JSON list of strings in a ```json block and nothing else; with an empty list if there is nothing"
    ' to list. For example:\n```json\n["kettle", "window"]\n```\n\n'
    "Question: {question}\n\nAnswer: {answer}\n"
)


def _read_names(reply: str) -> Reading:
    names = read_objects(reply)
    return None if names is None else {"names": float(len(names))}


def _no_worth(_: Mapping[str, float]) -> float:
    raise InputError("object-halbench's model lists objects and grades nothing; remove --anchors")


#: The official script tries up to a hundred times to get a list; here it is three times, then the answer is unscored.
EXTRACTION = Grading(name="object-halbench", prompt=_TASK, read=_read_names, worth=_no_worth, tries=3)

METRICS: dict[str, AnyMetric] = {
    "chair_s_refine": Metric(
        label="Answers with an absent object, of those that name objects",
        numerator={"hallucinates": 1},
        denominator={"names_objects": 1},
        higher_is_better=False,
        primary=True,
    ),
    "chair_i": Metric(
        label="Absent objects among those named",
        numerator={"absent_mentions": 1},
        denominator={"mentions": 1},
        higher_is_better=False,
    ),
    "chair_s": mean("hallucinates", "Answers with an absent object, of all", higher_is_better=False),
    "obj_rec": Metric(
        label="Objects named (Recall_coco)", numerator={"found": 1}, denominator={"present": 1}, higher_is_better=True
    ),
    "avg_word_len": mean("words", "Words of an answer", higher_is_better=None, unit="number"),
    "coco_sentence_num": count("names_objects", "Answers that name objects"),
    "coco_word_count": count("found", "Present objects named"),
    "gt_word_count": count("present", "Present objects"),
}


def object_halbench(name: str, options: BenchmarkOptions) -> "ObjectHalBench":
    """Questions of the official list if the folder has it; truth from COCO's files, or from a JSON of objects."""
    folder = options.folder
    found = (path for name in _QUESTIONS for path in (folder / name, folder / "data" / name) if path.is_file())
    return ObjectHalBench(
        name,
        folder,
        options.images or folder,
        halbench_vocabulary(options.synonyms),
        questions=next(found, None),
        limit=options.limit,
    )


@dataclass(frozen=True)
class ObjectHalBench:
    """The images of the official list, or without it every described image of the truth.

    With verdicts, objects are those that a model listed, each word once; without, mentions in the answer itself.
    """

    name: str
    place: Path
    folder: Path
    vocabulary: Vocabulary
    questions: Path | None = None
    limit: int | None = None
    grading: Grading = EXTRACTION
    verdicts: Verdicts = field(default_factory=Verdicts)
    max_new_tokens: int = 512
    counts_every_answer: bool = True

    @property
    def judge_note(self) -> str:
        return (
            f"{self.name}: objects were found by synonyms, as the official script finds them without a language model;"
            f" with one, run `sightline score {self.name} --answers ANSWERS --data DATA --judge JUDGE.yaml`"
        )

    def case(self, sample: Sample, answer: Answer) -> Case:
        return Case(question=sample.prompt, answer=_answer_text(answer))

    def with_verdicts(self, verdicts: Verdicts) -> "ObjectHalBench":
        return replace(self, verdicts=verdicts)

    @property
    def scores_only_answered(self) -> bool:
        return self.questions is None

    @property
    def caveats(self) -> tuple[str, ...]:
        return self.vocabulary.caveats

    @property
    def metrics(self) -> Mapping[str, AnyMetric]:
        return METRICS

    @cached_property
    def pictures(self) -> Mapping[str, CocoPicture]:
        return read_truth(self.name, self.place)

    def samples(self) -> Iterator[Sample]:
        for number, (key, prompt) in enumerate(self._questions_in_order()):
            if number == self.limit:
                return
            picture = self.pictures[key]
            yield Sample(
                id=key,
                images=(picture.file,) if picture.file else (),
                prompt=prompt,
                task="description",
                cluster=key,
                truth={"objects": picture.objects, "captions": picture.captions},
            )

    def answer_key(self, row: Mapping[str, Any]) -> str | None:
        return answer_picture(row)

    def review(self, row: Mapping[str, Any], number: int) -> tuple[str, tuple[str, ...]] | None:
        """The mentions in a row of the owners' `hall_*.json`, under `sentences`."""
        mentions = row.get("mscoco_generated_words")
        if "image_id" not in row or not isinstance(mentions, list):
            return None
        return picture_key(row["image_id"]), (json.dumps({"mscoco_generated_words": mentions}),)

    def score(self, sample: Sample, answer: Answer) -> Score:
        if not self.verdicts.given:
            return self._count(sample, answer, self._mentions(_answer_text(answer)), {"extraction": "synonyms"})
        judge_reply = next((reply for reply in self.verdicts.replies_to(sample, answer) if reply is not None), None)
        owners = None if judge_reply is None else read_owners_mentions(judge_reply)
        if owners is not None:
            found = owners_mentions(owners, self.vocabulary)
            return self._count(sample, answer, found, {"extraction": "owners' file"})
        if len(_answer_text(answer).split()) <= SHORT:
            return self._count(sample, answer, [], {"extraction": "short answer"})
        names = None if judge_reply is None else read_objects(judge_reply)
        details = {"extraction": "model", "reply": judge_reply, "nouns": "spacy" if has_official_tagger() else "own"}
        mentions = None if names is None else match_objects(names, self.vocabulary)
        return self._count(sample, answer, mentions, details)

    def _questions_in_order(self) -> Iterator[tuple[str, str]]:
        """(image, question) in order."""
        if self.questions is None:
            yield from ((key, DESCRIBE) for key in self.pictures)
            return
        for where, row in json_lines(self.questions):
            key, prompt = picture_key(row.get("image_id")), row.get("question", row.get("prompt"))
            if key not in self.pictures or not isinstance(prompt, str):
                lacking = "a question" if key in self.pictures else f"an image of the truth (image_id {key})"
                raise InputError(f"{where}: the row lacks {lacking}; fetch the list again, or COCO's annotations")
            yield key, prompt

    def _mentions(self, text: str) -> list[ObjectMention]:
        base = functools.partial(lemma, known=self.vocabulary.known)
        return self.vocabulary.mentions(text, base)

    def _present(self, sample: Sample) -> set[str]:
        """The union of the annotated objects and those that the reference captions name."""
        annotated = {self.vocabulary.resolve(name) for name in sample.truth["objects"]}
        return annotated.union(
            mention.object for caption in sample.truth["captions"] for mention in self._mentions(caption)
        )

    def _count(
        self, sample: Sample, answer: Answer, mentions: Sequence[ObjectMention] | None, details: dict[str, Any]
    ) -> Score:
        """The score; `mentions` is None if the model returned no list, which leaves all but the words unscored."""
        present = self._present(sample)
        absent = [mention for mention in mentions or () if mention.object not in present]
        counts = {
            "hallucinates": bool(absent),
            "names_objects": bool(mentions),
            "absent_mentions": len(absent),
            "mentions": len(mentions or ()),
            "found": len({mention.object for mention in mentions or ()} & present),
            "present": len(present),
        }
        values = {name: None if mentions is None else float(value) for name, value in counts.items()}
        words = len(_answer_text(answer).split(" "))
        objects = {
            "hallucinated": [mention.span for mention in absent if mention.span[1]],
            "absent": sorted({mention.object for mention in absent}),
            "present": sorted(present),
        }
        return Score(
            sample_id=sample.id,
            cluster=sample.cluster,
            values={**values, "words": float(words), DECIDED_BY_QUIRK: float(mentions is None)},
            details={**objects, **details},
        )


def _answer_text(answer: Answer) -> str:
    """The answer's text as the official script reads it."""
    return answer.text.replace("Assistant:", "").strip()
