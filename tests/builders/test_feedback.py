"""Thumbs and corrections become pairs; contradictory feedback is dropped and counted, each reason once."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset
from typer.testing import CliRunner

from sightline.builders.feedback import pairs_from_feedback
from sightline.cli import app
from sightline.data.preference_dataset import read_pairs
from sightline.data.request_log import RequestLog, picture_file, read_log
from sightline.errors import InputError
from sightline.records import Pair
from tests.apps.conftest import chat, data_url, door_before
from tests.judges.local_server import Body, say

CUP, DOG = "A red cup stands on the table.", "A dog."
#: prompt, color of the picture, answer, what people said of it: thumb and correction, one after the other.
CALLS: tuple[tuple[str, str, str, list[tuple[str | None, str | None]]], ...] = (
    ("Describe.", "red", "A blue cup stands on the table.", [("down", CUP)]),  # corrected
    ("Describe.", "teal", DOG, [("down", None)]),  # against the liked one below
    ("Describe.", "teal", "A cow.", [("up", None), ("up", None)]),
    ("Describe.", "teal", "A hen.", [("up", None), ("down", None)]),  # contradicts itself
    ("Describe.", "blue", "Sea.", [("up", None)]),  # liked alone
    ("Describe.", "green", "Lawn.", [("down", None)]),  # disliked alone
    ("What?", "teal", "A boat.", [("down", None)]),  # another prompt: disliked alone
    ("What?", "red", "One.", [("up", None)]),
    ("What?", "red", "One.", [("down", None)]),  # the same answer liked and disliked
    ("What?", "blue", "Two.", [(None, "Three."), (None, "Four.")]),  # two corrections
    ("What?", "green", "Six.", [("up", "Seven.")]),  # liked and corrected
    ("How?", "red", "So.", [(None, "So.")]),  # corrected to itself
    ("How?", "blue", "Thus.", []),  # nobody said anything
)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls and feedback through the door of a served model."""
    place = tmp_path_factory.mktemp("log")

    def script(body: Body, number: int) -> Any:
        return say(CALLS[number][2])

    with door_before(script, place, keep_images=True) as client:
        for prompt, color, _, entries in CALLS:
            answer = client.post("/v1/chat/completions", json=chat(prompt, data_url(color=color)))
            for thumb, correction in entries:
                body = {"id": answer.headers["x-sightline-id"], "thumb": thumb, "correction": correction}
                assert client.post("/feedback", json=body).status_code == 200
        assert client.post("/feedback", json={"id": "0" * 32, "thumb": "up"}).status_code == 200
    return place


def test_pairs_and_what_was_dropped(log: Path, tmp_path: Path) -> None:
    manifest = pairs_from_feedback([log], tmp_path / "pairs")
    pairs = {pair.provenance["kind"]: pair for pair in read_pairs(tmp_path / "pairs")}
    assert manifest.counts == {"answers": 9, "pairs": 2}
    corrected, thumbs = pairs["correction"], pairs["thumbs"]
    assert (corrected.prompt, corrected.chosen, corrected.rejected) == ("Describe.", CUP, CALLS[0][2])
    assert [CUP[start:end] for start, end in corrected.chosen_spans] == ["red"]
    assert [corrected.rejected[start:end] for start, end in corrected.rejected_spans] == ["blue"]
    assert (thumbs.chosen, thumbs.rejected, thumbs.chosen_spans) == ("A cow.", DOG, ())
    assert manifest.dropped == {
        "thumbs of one answer that contradict each other": 1,
        "several corrections of one answer": 1,
        "thumb up and correction of one answer": 1,
        "feedback on a call that is not in the log": 1,
        "one answer liked and disliked to the same prompt": 1,
        "a correction that was itself disliked": 1,
        "disliked, without a correction or a liked answer": 2,
        "liked, without a disliked answer": 1,
    }
    rows = {row.id: row for row, _ in read_log(log)}
    for pair in pairs.values():
        (picture,) = rows[pair.provenance["request"]].images
        assert (tmp_path / "pairs" / pair.images[0]).read_bytes() == picture_file(log, picture.sha256).read_bytes()
        assert pair.cluster == picture.sha256[:32]


def test_the_ecosystem_opens_them_and_the_command_says_what_it_did(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "feedback-pairs"
    done = CliRunner().invoke(app, ["pairs", "from-feedback", str(log), "--out", str(out)])
    assert done.exit_code == 0 and "2 kept" in done.stdout
    dataset = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert dataset["builder"][:] == ["feedback", "feedback"] and dataset[0]["images"][0].size == (24, 16)
    again = CliRunner().invoke(app, ["pairs", "from-feedback", str(log), "--out", str(out)])
    assert again.exit_code == 0
    RequestLog(log, 10**9)  # more feedback is another run
    with (log / "feedback.jsonl").open("a") as file:
        file.write(json.dumps({"id": "1" * 32, "thumb": "up"}) + "\n")
    other = CliRunner().invoke(app, ["pairs", "from-feedback", str(log), "--out", str(out)])
    assert other.exit_code == 2 and "input changed: log_0_feedback.jsonl" in " ".join(other.stderr.split())


def test_a_log_without_words_or_pictures_gives_nothing(tmp_path: Path) -> None:
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("hashes", {}, "the picture was not kept"),
        ("texts", {"redact": "texts", "keep_images": True}, "redacted: the log has no text"),
    )
    for name, settings, reason in cases:
        place = tmp_path / name
        with door_before(lambda body, number: say("A cup."), place, **settings) as client:
            answer = client.post("/v1/chat/completions", json=chat("What?", data_url()))
            client.post("/feedback", json={"id": answer.headers["x-sightline-id"], "correction": "A dog."})
        with pytest.raises(InputError, match=f"no pair is left .*{reason}"):
            pairs_from_feedback([place], tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()
    with pytest.raises(InputError, match="holds no log"):
        pairs_from_feedback([tmp_path], tmp_path / "pairs")


def test_a_pair_is_what_training_takes(log: Path, tmp_path: Path) -> None:
    pairs_from_feedback([log], tmp_path / "pairs")
    (one, *_rest) = read_pairs(tmp_path / "pairs")
    assert isinstance(one, Pair) and one.builder == "feedback" and one.id.endswith(("-correction", "-thumbs"))
