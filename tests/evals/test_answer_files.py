"""The layouts in which scripts write answers, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.answer_files import read_answers


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "answers"
    path.write_text(text)
    return path


ROWS = [{"image_id": 7, "caption": "A cup."}, {"image_id": "COCO_val2014_000000000042.jpg", "caption": ""}]


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(map(json.dumps, ROWS)),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        json.dumps({"overall": {}, "imgToEval": {str(n): row for n, row in enumerate(ROWS)}}, indent=1),
        json.dumps({"7": "A cup.", "42": ""}),
        "\ufeff" + json.dumps(ROWS[0]) + "\r\n\r\n" + json.dumps(ROWS[1]) + "\r\n",
    ],
)
def test_layouts(text: str, tmp_path: Path) -> None:
    assert [(given.key, given.text) for given in read_answers(written(tmp_path, text))] == [("7", "A cup."), ("42", "")]


@pytest.mark.parametrize(
    ("row", "key", "text"),
    [
        ({"question_id": 3, "prompt": "Is?", "text": "Yes"}, "3", "Yes"),
        ({"question_id": 3, "text": "Is there?", "answer": "Yes"}, "3", "Yes"),
        ({"id": "a", "answer": "truth", "prediction": "said"}, "a", "said"),
        ({"questionId": "0123", "prediction": "said"}, "0123", "said"),
        ({"id": 5.0, "response": "said"}, "5", "said"),
        ({"question": "Is?", "model_answer": "said", "gt_answer": "truth"}, None, "said"),
        ({"sample_id": "s/1", "cluster": "", "text": "said", "tokens": 2, "finished": True}, "s/1", "said"),
    ],
)
def test_names_of_ids_and_texts(row: dict[str, Any], key: str | None, text: str, tmp_path: Path) -> None:
    (given,) = read_answers(written(tmp_path, json.dumps(row)))
    assert (given.key, given.text) == (key, text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "are empty"),
        ('{"id": 1, "answer": "a"}\n{"id": 2, "answer": null}', "line 2: the answer must be text under one of"),
        ('{"id": 1, "answer": "a"}\n{"id": 2, "answer": 5}', r"line 2.*found: answer = 5"),
        ('{"id": 1, "answer": "a"}\n{"id": 2,', "line 2 is not JSON"),
        ('{"id": 1, "answe', "line 1 is not JSON"),
        ('{"id": 1, "answer": "a"}\n[]', r"line 2: \[\] is no JSON object"),
        ('{"id": [1], "answer": "a"}', r"line 1: id = \[1\] is neither"),
        ('{"id": true, "answer": "a"}', "line 1: id = True is neither"),
        ('{"id": 1, "said": "a"}', r"line 1.*\(found: none\)"),
    ],
)
def test_what_is_no_answer_is_refused_by_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        list(read_answers(written(tmp_path, text)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere do not exist"):
        list(read_answers(tmp_path / "nowhere"))
