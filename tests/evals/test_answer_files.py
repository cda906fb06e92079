"""Layouts of answer files, and refused ones."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.evals.answer_reader import normal_image_name, read_answers


def written(tmp_path: Path, text: str, name: str = "answers") -> Path:
    path = tmp_path / name
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
        "\n".join(json.dumps(row, indent=4) for row in ROWS),  # one after another, as POPE's caption_data
        "image_id\tcaption\n7\tA cup.\n42\t\n",
        'image_id\tcaption\r\n7.0\t"A cup."\r\nCOCO_val2014_000000000042.jpg\t\r\n',
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
        ({"id": "5.0", "response": "said"}, "5", "said"),
        ({"id": 1, "question": "Is?", "answer": "truth", "pred": "said"}, "1", "said"),
        ({"id": 1, "answer": "truth", "Model Output": "said"}, "1", "said"),
        ({"id": 1, "prompt": "Is?", "predict": "said", "label": "truth"}, "1", "said"),
        ({"id": 1, "prompt": "Is?", "text": "said", "answer": "truth"}, "1", "said"),
        ({"id": 1, "question": "Is?", "text": "Is?", "answer": "said"}, "1", "said"),
        ({"id": 1, "response": "said", "output": "said", "answer": "truth"}, "1", "said"),
        ({"id": 1, "answer": "said", "model_id": "llava", "answer_id": "x", "metadata": {}}, "1", "said"),
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
        ('{"id": 1, "answer": "a"}\n[]', r"line 2: \[\] is not a JSON object"),
        ('{"id": [1], "answer": "a"}', r"line 1: id = \[1\] is neither"),
        ('{"id": true, "answer": "a"}', "line 1: id = True is neither"),
        ('{"id": 1, "said": "a"}', r"line 1.*\(found: none\)"),
        ('{"id": 1, "answer": "yes", "pred": null}', "line 1: the answer must be text .*found: pred = None"),
        ('{"id": 1, "pred": "a", "response": "b"}', r"pred = 'a', response = 'b': one is .*--answer-key KEY"),
        ('{"id": 1, "answer": "a", "caption": "b"}', "answer = 'a', caption = 'b': one is the model's"),
        ('{"id": 1, "question": "Is?", "answer": "a", "text": "b"}', "answer = 'a', text = 'b'"),
        ('{"id": 1, "answer": "yes", "my_model_output": "no"}', "answer = 'yes', my_model_output = 'no'"),
        (
            '{"id": 1, "answer": "yes", "pred": "no"}\n{"id": 2, "answer": "yes"}',
            "line 2: .*'answer', in earlier .*'pred'",
        ),
        ('{"id": 1, "answer": "yes"}\n{"id": 2, "answer": "yes", "pred": "no"}', "line 2: .*'pred', in earlier"),
        ('{"id": 1, "answer": "a"}\n\n{\n"id": 2', "line 3 is not JSON"),
        ('{\n"id": 1, "answer": "a"\n}\n{\n"id": 2', "is not JSON"),
        ('{"one": "a"}\n{"two": "b"}', r"line 1.*\(found: none\)"),
        ("id\tid\n1\t2\n", "line 1: the header .* names a column twice"),
        ("id\tanswer\n1\n", "line 2: 1 values for 2 columns"),
        ("id\tanswer\tprediction\n1\tyes\t\n2\tno\tYes\n3\tno\tno\textra", "line 4: 4 values for 3 columns"),
    ],
)
def test_what_is_no_answer_is_refused_by_its_place(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        list(read_answers(written(tmp_path, text)))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        list(read_answers(tmp_path / "nowhere"))


def test_a_named_key_is_the_answer_whatever_else_is_there(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps({"id": 1, "pred": "a", "response": "b", "mine": ["c"], "answer": "truth"}))
    assert [next(read_answers(path, answer_key=key)).text for key in ("pred", "response", "mine")] == ["a", "b", "c"]
    with pytest.raises(InputError, match="other = None is not text; the row's keys are id, pred, response"):
        list(read_answers(path, answer_key="other"))


def test_an_empty_prediction_in_a_table_is_an_empty_answer_and_not_the_truth(tmp_path: Path) -> None:
    path = written(tmp_path, "id\tanswer\tprediction\n1\tyes\t\n2\tno\tYes\n", "model_POPE.tsv")
    assert [given.text for given in read_answers(path)] == ["", "Yes"]


def test_vlmevalkit_numbers_rows_by_index(tmp_path: Path) -> None:
    text = "index\tquestion\tanswer\tcategory\timage_path\tprediction\n3\tIs?\tYes\tpopular\ta/7.png\tNo\n"
    (given,) = read_answers(written(tmp_path, text, "model_MME.tsv"))
    assert (given.key, given.text, given.question, given.image) == ("3", "No", "Is?", "7")


def test_an_excel_table_without_its_reader_is_one_sentence(tmp_path: Path) -> None:
    remedy = "save it as TSV" if importlib.util.find_spec("openpyxl") else "save it as TSV .* install openpyxl"
    with pytest.raises(InputError, match=remedy):
        list(read_answers(written(tmp_path, "PK", "model_POPE.xlsx")))


DOC = {"id": "0", "question_id": "7", "question": "Is?", "answer": "truth", "category": "popular", "image_source": "a"}


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"doc_id": 0, "doc": DOC, "target": "truth", "resps": [["said"]], "filtered_resps": ["said"]}, "7"),
        ({"doc_id": 0, "doc": DOC, "target": "truth", "resps": [["raw"]], "filtered_resps": ["said"]}, "7"),
        ({"doc_id": 0, "doc": {"question_id": 7, "text": "Is?", "label": "no"}, "resps": [["said"]]}, "7"),
        (
            {"doc_id": 0, "input": "Is?", "filtered_resps": ["said"], "pope_f1": {"question_id": "7", "score": 1.0}},
            "7",
        ),
        ({"doc_id": 0, "arguments": [["Is?", {}]], "filtered_resps": ["said"]}, None),
    ],
)
def test_samples_that_lmms_eval_logged(row: dict[str, Any], key: str | None, tmp_path: Path) -> None:
    (given,) = read_answers(written(tmp_path, json.dumps(row)))
    assert (given.key, given.text, given.question) == (key, "said", "Is?")


@pytest.mark.parametrize("replies", [[[[-1.5, False]]], [], None])
def test_samples_without_a_text_are_refused(replies: object, tmp_path: Path) -> None:
    row = {"doc_id": 0, "doc": DOC, "resps": replies}
    with pytest.raises(InputError, match=r"line 1: (?:filtered_)?resps = .* holds no text"):
        list(read_answers(written(tmp_path, json.dumps(row))))


@pytest.mark.parametrize(
    "value",
    [
        {"acc": 50.0, "correct": 1, "count": 2, "results": {"4": 1, "5": -1}, "outputs": {"4": "B", "5": "FAILED"}},
        {
            "correct": [{"question_id": "4", "parsed_ans": "B", "ground_truth": "B", "question": "", "pred": "B"}],
            "incorrect": [{"question_id": "5", "parsed_ans": "FAILED", "ground_truth": "A", "pred": "FAILED"}],
        },
    ],
)
def test_results_of_llavas_scienceqa_script(value: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(value, indent=2))
    assert [(given.key, given.text) for given in read_answers(path)] == [("4", "B"), ("5", "FAILED")]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COCO_val2014_000000000042.jpg", "42"),
        ("val2014/COCO_val2014_000000000042", "42"),
        ("0042", "42"),
        ("images/Cup.PNG", "cup"),
        ("a.b", "a.b"),
    ],
)
def test_names_of_pictures(name: str, expected: str) -> None:
    assert normal_image_name(name) == expected
