"""Encoding errors name file, line, id and image, although many rows have the same prompt."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from sightline.data.preference_dataset import write_preference_dataset
from sightline.errors import InputError
from sightline.models.encoding import encode_prefix
from sightline.models.loading import load_vlm
from sightline.models.requests import make_prefix
from sightline.models.vlm import VLM
from sightline.records import Sample, Turn, write_rows
from sightline.records.rows import Pair
from sightline.train.pair_filter import locate_errors
from tests.models.tiny import TEMPLATE
from tests.test_bad_input import assert_refused, call
from tests.train.test_run import write_pairs


@pytest.fixture(scope="module")
def vlm(model_dir: Path) -> VLM:
    return load_vlm(model_dir)


QUICK = ("--set", "loss={name: dpo, beta: 0.1}", "--set", "optim.lr=1e-4", "--set", "max_steps=1")
RL = (
    "judge: {name: oracle}, answers: 2, max_new_tokens: 4, advantage: {name: grpo, divide_by_deviation: false}, "
    "kl: {weight: 0, place: loss}, scale: {by: nothing}, average: answers, clip: null"
)
REFUSING = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def spoiled(pairs: Sequence[Pair], number: int, **columns: object) -> list[Pair]:
    """One prompt for all rows, and other columns in one of them."""
    same = [pair.model_copy(update={"prompt": "What is it?"}) for pair in pairs]
    same[number] = same[number].model_copy(update=columns)
    return same


def test_an_answer_that_is_refused(model_dir: Path, pairs: list[Pair], tmp_path: Path) -> None:
    place = write_pairs(tmp_path / "pairs", spoiled(pairs, 3, chosen="Two</s> cows."))
    out = tmp_path / "out"
    name = Path(pairs[3].images[0]).name
    where = f"{place}/pairs.jsonl line 4 (id 'pair-3', picture images/{name})"
    message = f"{where}: answer 'Two</s> cows.' contains the special token"
    for more in ((), ("--samples", place)):
        result = call("train", "--model", model_dir, "--pairs", place, *more, "--out", out, *QUICK)
        assert_refused(result, message)
        assert f"`sightline check {place} --model {model_dir}` finds all such rows" in result.stderr
    assert not out.exists()


def test_a_template_that_raises(model_dir: Path, pairs: list[Pair], tmp_path: Path) -> None:
    model = Path(shutil.copytree(model_dir, tmp_path / "model"))
    (model / "chat_template.jinja").write_text(REFUSING + TEMPLATE)
    rows = spoiled(pairs, 2, history=(Turn(role="system", text="Be brief."),))
    place = write_pairs(tmp_path / "pairs", rows)
    result = call("train", "--model", model, "--pairs", place, "--out", tmp_path / "out", *QUICK)
    assert_refused(result, "pairs.jsonl line 3 (id 'pair-2', picture images/")
    assert "refuses it (System role not supported); its turns are system, user" in result.stderr


def test_a_row_of_parquet(model_dir: Path, pairs: list[Pair], tmp_path: Path) -> None:
    place = write_pairs(tmp_path / "pairs", spoiled(pairs, 3, rejected="</s>"))
    write_preference_dataset(place)
    (place / "pairs.jsonl").unlink()
    result = call("train", "--model", model_dir, "--pairs", place, "--out", tmp_path / "out", *QUICK)
    assert_refused(result, "data/train-00000-of-00001.parquet row 4 (id 'pair-3', picture images/")


@pytest.mark.parametrize(
    "more",
    [
        ("--set", "loss={name: sft}"),
        ("--set", f"rl={{{RL}}}"),
        ("--set", "loss={name: dpo, beta: 0.1}", "--set", "source={name: bdhs, rho: 0.9}"),
    ],
)
def test_samples(model_dir: Path, pairs: list[Pair], tmp_path: Path, more: tuple[str, ...]) -> None:
    place = write_pairs(tmp_path / "samples", pairs)
    prompts = ["What is it?"] * 6
    prompts[1] = "What </s> is it?"
    rows = [
        Sample(id=p.id, images=(f"images/{Path(p.images[0]).name}",), prompt=text, reference="Two cups. One cow.")
        for p, text in zip(pairs, prompts, strict=True)
    ]
    (place / "pairs.jsonl").unlink()
    write_rows(place / "samples.jsonl", rows)
    command = ("train", "--model", model_dir, "--samples", place, "--out", tmp_path / "out", "--set", "max_steps=1")
    result = call(*command, "--set", "optim.lr=1e-4", *more)
    assert_refused(result, f"{place}/samples.jsonl line 2 (id 'pair-1', picture images/")
    assert "sightline check" not in result.stderr, "which takes pairs"


def test_the_one_of_several_is_found(model_dir: Path, vlm: VLM, pairs: list[Pair]) -> None:
    rows = [Sample(id=p.id, images=p.images, prompt="What?") for p in pairs]
    rows[4] = rows[4].model_copy(update={"prompt": "<s>"})
    with (
        pytest.raises(InputError, match=r"^sample 'pair-4' \(picture .*\): prompt '<s>' contains the special token"),
        locate_errors(rows, vlm),
    ):
        encode_prefix(vlm, make_prefix(rows[4], Path()))
    with pytest.raises(InputError, match=r"^of no row$"), locate_errors(rows[:3], vlm):
        raise InputError("of no row")


def test_ids_are_cut(tmp_path: Path, vlm: VLM) -> None:
    row = Sample(id="i" * 100_000, images=("x" * 100_000,) * 2, prompt="</s>")
    (tmp_path / "samples.jsonl").write_text(json.dumps(row.model_dump()) + "\n")
    with (
        pytest.raises(InputError, match=r"line 1 .*pictures xxx") as caught,
        locate_errors([row], vlm, tmp_path, tmp_path),
    ):
        encode_prefix(vlm, make_prefix(row, tmp_path))
    assert len(str(caught.value)) < 700
