"""Exports survive a round trip with any text, and TRL trains on the folder unchanged."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.formats.exporting import TARGETS, export_pairs
from sightline.data.formats.importing import ImportRequest, import_layout
from sightline.data.preference_dataset import read_pairs, write_preference_dataset
from sightline.errors import InputError
from sightline.records import Pair, Turn, write_rows

MARKS = ("<image>", "<video>", "<audio>")
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(
    lambda text: text.strip() and not any(mark in text for mark in MARKS)
)
hostile = st.sampled_from(["\n x", "a\n", '"]},{', "<imag", "{% raw %}", "\u2028", "<|im_end|>", "\x00", "\r\n"]).map(
    lambda text: f"{text}."
)
wordings = texts | hostile


def pair(name: str, *images: str, **changes: object) -> Pair:
    fields = {"prompt": "What?", "chosen": "A cup.", "rejected": "A pan.", "builder": "bdhs", "cluster": f"c-{name}"}
    return Pair.model_validate({"id": name, "images": images, **fields, **changes})


def save(directory: Path, *pairs: Pair) -> Path:
    for number, color in enumerate(("red", "blue")):
        (directory / "images").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 8), color).save(directory / f"images/{number}.png")
    write_rows(directory / "pairs.jsonl", pairs)
    write_preference_dataset(directory)
    return directory


def image_bytes(directory: Path, pair: Pair) -> list[bytes]:
    return [(directory / name).read_bytes() for name in pair.images]


def assert_same(there: Path, back: Path) -> None:
    for one, other in zip(read_pairs(there), read_pairs(back), strict=True):
        assert other.model_copy(update={"images": one.images}) == one
        assert image_bytes(there, one) == image_bytes(back, other)


@st.composite
def rows(draw: st.DrawFn) -> Pair:
    """A pair with any text, turns before the prompt, and images unsaid or in their places."""
    turns = [Turn(role="system", text=draw(wordings))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [Turn(role="user", text=draw(wordings)), Turn(role="assistant", text=draw(wordings))]
    images = draw(st.sampled_from([(), ("images/0.png",), ("images/1.png", "images/0.png")]))
    prompt = draw(wordings)
    if draw(st.booleans()):  # never in front of everything, where it would go without saying
        prompt = f"{prompt} {' and '.join(['<image>'] * len(images))}"
    answers = draw(st.tuples(wordings, wordings).filter(lambda both: both[0].strip() != both[1].strip()))
    second = draw(st.none() | wordings)
    changes: dict[str, Any] = {
        "history": turns,
        "second_rejected": second,
        "provenance": {"é": [1, None, {"x": draw(wordings)}]},
    }
    spans = ((0, 1),) if draw(st.booleans()) else ()
    changes["media"] = ("picture", "sound")[: len(images)] if draw(st.booleans()) else ()
    return pair("x", *images, prompt=prompt, chosen=answers[0], rejected=answers[1], chosen_spans=spans, **changes)


@pytest.mark.parametrize("layout", TARGETS)
@settings(max_examples=25)
@given(drawn=st.lists(rows(), min_size=1, max_size=3))
def test_any_pair_survives(layout: str, drawn: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("round")
    pairs = [one.model_copy(update={"id": f"{number}"}) for number, one in enumerate(drawn)]
    there = save(folder / "pairs", *pairs)
    assert export_pairs(layout, there, folder / "peer").counts == {"pairs": len(pairs)}
    manifest = import_layout(ImportRequest(folder / "peer"), folder / "back")
    assert manifest.stage == f"import {layout}" and manifest.dropped == {}
    assert_same(there, folder / "back")


def test_the_files_that_peers_open(tmp_path: Path) -> None:
    turns = (Turn(role="system", text="Be brief."), Turn(role="user", text="Hi"), Turn(role="assistant", text="Yes?"))
    there = save(tmp_path / "pairs", pair("1", "images/0.png", "images/1.png", history=turns), pair("2"))
    export_pairs("llama-factory", there, tmp_path / "llama")
    (row, bare) = json.loads((tmp_path / "llama/preferences.json").read_text())
    assert row["conversations"] == [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "<image><image>\nHi"},
        {"from": "gpt", "value": "Yes?"},
        {"from": "human", "value": "What?"},
    ]
    assert (row["chosen"], row["rejected"]) == ({"from": "gpt", "value": "A cup."}, {"from": "gpt", "value": "A pan."})
    assert row["images"] == ["images/0.png", "images/1.png"] and (tmp_path / "llama/images/1.png").exists()
    assert bare["conversations"] == [{"from": "human", "value": "What?"}] and bare["images"] == []
    info = json.loads((tmp_path / "llama/dataset_info.json").read_text())["sightline"]
    assert info["file_name"] == "preferences.json" and info["ranking"] is True and info["formatting"] == "sharegpt"
    assert info["columns"] == {n: n for n in ("chosen", "rejected", "images")} | {"messages": "conversations"}
    export_pairs("ms-swift", there, tmp_path / "swift")
    lines = [json.loads(line) for line in (tmp_path / "swift/preferences.jsonl").read_text().splitlines()]
    assert [message["role"] for message in lines[0]["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert lines[0]["messages"][-1]["content"] == "A cup." and lines[0]["rejected_response"] == "A pan."


def test_peers_files_load_as_tables(tmp_path: Path) -> None:
    """LLaMA-Factory and ms-swift load them with `datasets`, which wants one type a column."""
    from datasets import load_dataset

    spans = pair("2", "images/0.png", chosen_spans=((0, 1),), second_rejected="x", provenance={"n": [1]})
    there = save(tmp_path / "pairs", pair("1", provenance={"n": "a"}), spans)
    for layout, name in (("llama-factory", "preferences.json"), ("ms-swift", "preferences.jsonl")):
        export_pairs(layout, there, tmp_path / layout)
        loaded = load_dataset(
            "json", data_files=str(tmp_path / layout / name), split="train", cache_dir=str(tmp_path / "cache")
        )
        assert loaded["id"][:] == ["1", "2"] and loaded["images"][:] == [[], ["images/0.png"]]


@pytest.mark.parametrize(
    ("layout", "changes", "problem"),
    [
        ("llama-factory", {"chosen": "See <image>."}, "contains <image>"),
        ("ms-swift", {"prompt": "Play <audio>."}, "contains <audio>"),
        ("llama-factory", {"history": [Turn(role="user", text="Hi")]}, "do not alternate"),
        ("ms-swift", {"prompt": "<image> <image>"}, "has 2 <image> placeholders and 1 images"),
        ("trl", {"prompt": "<image> <image>"}, "has 2 <image> placeholders and 1 images"),
    ],
)
def test_what_a_peer_would_not_take_is_refused(
    tmp_path: Path, layout: str, changes: dict[str, object], problem: str
) -> None:
    there = save(tmp_path / "pairs", pair("1", "images/0.png"))
    write_rows(there / "pairs.jsonl", [pair("1", "images/0.png", **changes)])
    with pytest.raises(InputError, match=problem):
        export_pairs(layout, there, tmp_path / "peer")
    assert not list((tmp_path / "peer").glob("preferences*"))


def test_the_command_and_what_it_refuses(tmp_path: Path) -> None:
    there = save(tmp_path / "pairs", pair("1", "images/0.png"))
    result = CliRunner().invoke(app, ["export", "ms-swift", str(there), "--out", str(tmp_path / "swift")])
    assert result.exit_code == 0 and f"export ms-swift: {tmp_path / 'swift'} (1 pairs)" in result.output
    with pytest.raises(InputError, match="unknown export layout 'swift'; did you mean 'ms-swift'"):
        export_pairs("swift", there, tmp_path / "x")
    with pytest.raises(InputError, match="holds neither"):
        export_pairs("trl", tmp_path / "swift", tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of TRL's own imports
def test_trl_trains_on_the_folder_as_it_is(tmp_path: Path) -> None:
    trl: Any = pytest.importorskip("trl", reason="TRL comes with the extra [bench]")
    from datasets import load_dataset

    from tests.models.tiny import save_tiny_llava

    folder = save(tmp_path / "pairs", *(pair(str(number), f"images/{number % 2}.png") for number in range(4)))
    model = save_tiny_llava(tmp_path / "model")
    args = trl.DPOConfig(
        output_dir=str(tmp_path / "trained"),
        per_device_train_batch_size=2,
        max_steps=2,
        learning_rate=1e-2,
        max_length=None,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        logging_steps=1,
        disable_tqdm=True,
    )
    rows = load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    trainer = trl.DPOTrainer(model=str(model), args=args, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)  # log 2: the policy is the reference still
    assert len(losses) == 2 and losses[1] < losses[0]
