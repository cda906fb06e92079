"""Layouts of published datasets, with columns as on their cards or in their authors' code.

- POVID (arXiv 2402.11411, `train_dpo.py`): LLaVA's rows with `rejected_conversations` of corrupted answers.
- RLHF-V (arXiv 2312.00849): `text` is JSON of question, chosen (corrected by people) and rejected. Changed characters
  become spans, which dense DPO weights (eq. 2).
- LLaVA-Instruct (arXiv 2304.08485, `train.py`): `conversations` become samples. The file name (conversation_58k.json,
  detail_23k.json, ...) gives the task.
- RLAIF-V (arXiv 2405.17220) and MMPR (arXiv 2411.10442): question, chosen and rejected, with an embedded image or
paths. - LLaVA-RLHF (arXiv 2309.14525, `data_utils_rm.py`): a conversation (sometimes in a list of one) whose last
answer is a
  placeholder, `output_1` and `output_2`, and `preference` 1 or 2.
- VLFeedback (arXiv 2312.10665, `run_dpo.py`): `completions` with `annotations` (aspect -> `Rating`, a text). The score
  is the mean rating; ties and answers with a rating that is not a number are dropped, as by the authors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from sightline.config.problems import shorten
from sightline.data.formats.conversations import (
    assistant_turn,
    drop_opening,
    pair_drafts,
    parse_turn,
    parse_turns,
    question_turns,
    sample_drafts,
)
from sightline.data.formats.layout import (
    TIE,
    BadRow,
    Columns,
    Drafts,
    Dropped,
    FileLayout,
    LayoutConfig,
    RecordDraft,
    has_columns,
    image_sources,
    parse_object,
    provenance_columns,
    text_column,
)
from sightline.data.texts import changed_spans
from sightline.data.turns import fold
from sightline.records.rows import IMAGE, Sample, Turn
from sightline.records.store import write_json


def _fits(columns: Columns) -> bool:
    return has_columns(columns, "conversations", "rejected_conversations")


def _read(columns: Columns, _: LayoutConfig) -> Drafts:
    better, left_out = drop_opening(parse_turns(columns.get("conversations"), "conversations"))
    worse = drop_opening(parse_turns(columns.get("rejected_conversations"), "rejected_conversations"))[0]
    yield from left_out
    yield from pair_drafts(better, worse, image_sources(columns, "image", "images"), provenance_columns(columns, "id"))


POVID = FileLayout("povid", "LLaVA's rows with conversations and rejected_conversations (JSON)", _fits, _read)


def _fits_rlhf_v(columns: Columns) -> bool:
    text = columns.get("text")
    is_object = isinstance(text, Mapping) or (isinstance(text, str) and text.lstrip().startswith("{"))
    return is_object and has_columns(columns, "image") and not has_columns(columns, "question")


def _read_rlhf_v(columns: Columns, _: LayoutConfig) -> Drafts:
    texts = columns.get("text")
    texts = texts if isinstance(texts, Mapping) else parse_object(text_column(columns, "text"), "text")
    prompt = text_column(texts, "question")
    better, worse = (question_turns(prompt, text_column(texts, name)) for name in ("chosen", "rejected"))
    origin = provenance_columns(columns, "idx", "ds_name", "origin_dataset", "origin_split", "image_path")
    for draft in pair_drafts(better, worse, image_sources(columns, "image"), origin):
        if isinstance(draft, RecordDraft):
            spans = changed_spans(draft.fields["chosen"], draft.fields["rejected"])
            draft = replace(draft, fields={**draft.fields, "chosen_spans": spans[0], "rejected_spans": spans[1]})
        yield draft


RLHF_V = FileLayout(
    "rlhf-v", "a JSON text of question, chosen, rejected beside the image (Parquet, JSON)", _fits_rlhf_v, _read_rlhf_v
)


_OF_PAIRS = ("rejected_conversations", "chosen", "rejected", "output_1", "output_2")
_TYPES = ("conversation", "detail", "complex")
_NAMES = {"user": "human", "assistant": "gpt", "system": "system"}


def _fits_llava_instruct(columns: Columns) -> bool:
    return has_columns(columns, "conversations") and not any(has_columns(columns, name) for name in _OF_PAIRS)


def _read_llava_instruct(columns: Columns, config: LayoutConfig) -> Drafts:
    turns, left_out = drop_opening(parse_turns(columns.get("conversations"), "conversations"))
    yield from left_out
    yield from sample_drafts(turns, image_sources(columns, "image", "images"), every=config.turns == "every")


def _instruction_type(file: Path) -> str:
    """The instruction type in a file's name, empty if there is none."""
    return next((kind for kind in _TYPES if file.name.lower().startswith(kind)), "")


def _llava_row(sample: Sample) -> dict[str, Any]:
    """Convert a sample with its reference to a row."""
    answer = Turn(role="assistant", text=sample.reference or "")
    turns = fold([*sample.history, Turn(role="user", text=sample.prompt), answer], f"sample {shorten(sample.id)}")
    if sample.images and not any(IMAGE in turn.text for turn in turns):
        first = next(place for place, turn in enumerate(turns) if turn.role == "user")
        turns[first] = Turn(role="user", text=f"{IMAGE}\n" * len(sample.images) + turns[first].text)
    pictures = {"image": sample.images[0] if len(sample.images) == 1 else list(sample.images)} if sample.images else {}
    messages = [{"from": _NAMES[turn.role], "value": turn.text} for turn in turns]
    return {"id": sample.id, **pictures, "conversations": messages}


def write_llava(samples: Sequence[Sample], path: Path) -> None:
    """Write samples in the format of LLaVA's training script, image paths relative to the file's folder."""
    write_json(path, [_llava_row(sample) for sample in samples])


LLAVA_INSTRUCT = FileLayout(
    "llava-instruct",
    "conversations of human and gpt, as samples (JSON)",
    _fits_llava_instruct,
    _read_llava_instruct,
    Sample,
    task_of=_instruction_type,
)


def _fits_rlaif_v(columns: Columns) -> bool:
    return _fits_question_answers(columns) and (
        _is_embedded(columns.get("image")) or has_columns(columns, "origin_dataset")
    )


def _fits_mmpr(columns: Columns) -> bool:
    return _fits_question_answers(columns) and not _fits_rlaif_v(columns)


def _fits_question_answers(columns: Columns) -> bool:
    return all(isinstance(columns.get(name), str) for name in ("question", "chosen", "rejected"))


def _is_embedded(value: object) -> bool:
    return isinstance(value, bytes | Mapping)


def _read_question_answers(columns: Columns, _: LayoutConfig) -> Drafts:
    prompt = text_column(columns, "question")
    better, worse = (question_turns(prompt, text_column(columns, name)) for name in ("chosen", "rejected"))
    origin = provenance_columns(columns, "id", "idx", "ds_name", "origin_dataset", "origin_split", "image_path")
    yield from pair_drafts(better, worse, image_sources(columns, "image", "images"), origin)


RLAIF_V = FileLayout(
    "rlaif-v", "question, chosen, rejected beside an embedded image (Parquet)", _fits_rlaif_v, _read_question_answers
)
MMPR = FileLayout(
    "mmpr",
    "question, chosen, rejected and the path of one image or several (JSONL)",
    _fits_mmpr,
    _read_question_answers,
)


def _fits_llava_rlhf(columns: Columns) -> bool:
    return has_columns(columns, "conversations", "output_1", "output_2", "preference")


def _read_llava_rlhf(columns: Columns, _: LayoutConfig) -> Drafts:
    value = columns.get("conversations")
    nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
    turns = parse_turns(value[0] if nested and isinstance(value, list) else value, "conversations")
    context, left_out = drop_opening(turns[:-1] if turns and turns[-1].role == "assistant" else turns)
    yield from left_out
    preference = columns.get("preference")
    if preference not in (1, 2):
        raise BadRow(f"preference = {shorten(preference)} is neither 1 nor 2")
    better, worse = (_answer(columns, f"output_{number}") for number in (preference, 3 - preference))
    pictures = image_sources(columns, "image", "images")
    yield from pair_drafts(
        (*context, better), (*context, worse), pictures, provenance_columns(columns, "id", "preference")
    )


def _answer(columns: Columns, name: str) -> Turn:
    """The answer of a column as an assistant turn; the column's `from` names a model."""
    value = columns.get(name)
    return assistant_turn(value) if isinstance(value, str) else parse_turn({**(value or {}), "from": "gpt"}, name)


LLAVA_RLHF = FileLayout(
    "llava-rlhf", "a conversation, output_1, output_2 and preference (JSON)", _fits_llava_rlhf, _read_llava_rlhf
)


UNRATED = "fewer than two rated answers"


@dataclass(frozen=True)
class _Rated:
    model: str
    text: str
    ratings: dict[str, float]

    @property
    def score(self) -> float:
        return sum(self.ratings.values()) / len(self.ratings)


def _fits_vlfeedback(columns: Columns) -> bool:
    return has_columns(columns, "prompt", "completions")


def _read_vlfeedback(columns: Columns, config: LayoutConfig) -> Drafts:
    prompt, pictures = text_column(columns, "prompt"), image_sources(columns, "image", "images", "img", "img_path")
    answers = [answer for one in _completions(columns) if (answer := _rated(one, config.aspects)) is not None]
    if len(answers) < 2:
        yield Dropped(UNRATED)
        return
    for better, worse in _compared(answers, config.ranked):
        if better.score == worse.score:
            yield Dropped(TIE)
            continue
        origin = (
            provenance_columns(columns, "id", "img_path")
            | _rating_columns("chosen", better)
            | _rating_columns("rejected", worse)
        )
        yield from pair_drafts(
            question_turns(prompt, better.text), question_turns(prompt, worse.text), pictures, origin
        )


def _compared(answers: list[_Rated], ranked: str) -> Iterator[tuple[_Rated, _Rated]]:
    """Pairs of answers, the better first; among equals the earlier in the row."""
    ordered = sorted(answers, key=lambda answer: -answer.score)
    worst = min(ordered, key=lambda answer: answer.score)
    yield from combinations(ordered, 2) if ranked == "all" else [(ordered[0], worst)]


def _completions(columns: Columns) -> list[Mapping[str, Any]]:
    """The completions as a list of structs; `datasets` stores a sequence of structs as a struct of lists."""
    value = columns.get("completions")
    if isinstance(value, Mapping) and value and all(isinstance(part, list) for part in value.values()):
        if len({len(part) for part in value.values()}) > 1:
            raise BadRow(f"completions = {shorten(value)} has lists of several lengths")
        value = [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise BadRow(f"completions = {shorten(value)} is not a list of answers")
    return value


def _rated(completion: Mapping[str, Any], aspects: tuple[str, ...]) -> _Rated | None:
    """The answer with its ratings; None if a rating is missing or not a number, such as `N/A`."""
    annotations, ratings = completion.get("annotations"), {}
    for aspect in aspects:
        given = annotations.get(aspect) if isinstance(annotations, Mapping) else None
        try:
            ratings[aspect] = float(given["Rating"] if isinstance(given, Mapping) else "")
        except (KeyError, TypeError, ValueError):
            return None
        if not 0 <= ratings[aspect] < float("inf"):
            return None
    return _Rated(str(completion.get("model") or ""), text_column(completion, "response"), ratings)


def _rating_columns(side: str, answer: _Rated) -> dict[str, Any]:
    return {
        f"{side}_model": answer.model,
        f"{side}_score": round(answer.score, 6),
        f"{side}_ratings": answer.ratings,
    }


VLFEEDBACK = FileLayout(
    "vlfeedback", "several rated answers to a prompt (JSONL, Parquet)", _fits_vlfeedback, _read_vlfeedback
)
