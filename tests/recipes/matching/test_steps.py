"""The steps from samples to samples, with a real server on loopback: requests, kept and dropped rows, counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.data.samples import read_samples, write_samples
from sightline.endpoint import client
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.registry import get_benchmark
from sightline.recipes.matching.entities.pairs import make_sample
from sightline.recipes.matching.entities.rule import StringRule, write_rule
from sightline.recipes.matching.samples import round_robin
from sightline.records import Sample, Score, read_manifest, write_rows
from tests.data.entities.rows import pair, write_deepmatcher
from tests.judges.local_server import Act, Body, say, serving, status, text_of

pytest.importorskip("openai")
STRUCTURED = "attribute=title|||importance=0.5|||values=a###b|||similarity=0.25"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGHTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.01)


def call(*words: object) -> Result:
    return CliRunner().invoke(app, ["match", *map(str, words)])


def by(url: str) -> tuple[str, str]:
    server: dict[str, Any] = {"base_url": url, "model": "m", "timeout": 60, "retries": 0}
    return "--set", f"annotator={json.dumps({'name': 'endpoint', 'server': server})}"


@pytest.fixture
def train(tmp_path: Path) -> Path:
    """The six pairs as samples, two of which match: train-000000 and train-000002."""
    place = write_deepmatcher(tmp_path / "dm")
    done = call("read", place, "--out", tmp_path / "train", "--set", "split=train", "--set", "noun=lamp")
    assert done.exit_code == 0, done.output
    return tmp_path / "train"


def rows_of(place: Path) -> dict[str, Sample]:
    return {sample.id: sample for sample in read_samples(place)}


def says_match(body: Body) -> bool:
    """Whether the call is about the two lamps that are the same."""
    return "Lumo LX-20 lamp" in text_of(body) and "LX20" in text_of(body)


def test_explanations_of_each_format_stand_behind_the_label(train: Path, tmp_path: Path) -> None:
    def script(body: Body, number: int) -> Act:
        text = text_of(body)
        if "Why:" in text:
            return say(" Both are\n lamps. ")
        if "step by step" in text:
            return say("First the titles.\nThen the rest.")
        return say(STRUCTURED if "Lumo LX-20 lamp" in text else "I cannot compare them.")

    with serving(script) as (url, heard):
        results = {
            name: call("explain", train, "--out", tmp_path / name, "--set", f"format={name}", *by(url))
            for name in ("short", "long", "structured")
        }
        calls = len(heard.bodies)
        again = call("explain", train, "--out", tmp_path / "again", "--set", "format=long", *by(url))
        assert again.exit_code == 0 and len(heard.bodies) == calls == 18, "replies are kept"
    assert {result.exit_code for result in results.values()} == {0}
    short, long, structured = (rows_of(tmp_path / name) for name in results)
    assert short["train-000000"].reference == "Yes\nBoth are lamps."
    assert long["train-000001"].reference == "No\nFirst the titles.\nThen the rest."
    assert set(structured) == {"train-000000", "train-000001"} and list(short) == list(rows_of(train))
    assert structured["train-000001"].reference == (
        "No\nattribute=title|||importance=0.50|||values=a###b|||similarity=0.25"
    )
    assert read_manifest(tmp_path / "structured").dropped == {"the explanation breaks the form": 4}
    shown_texts = [text for text in heard.texts() if "Why:" in text]
    assert all(text.endswith("Why:") and text.count("Why:") == 3 for text in shown_texts), "two examples, label given"


def test_the_label_filter_keeps_what_a_model_reproduces(train: Path, tmp_path: Path) -> None:
    """It says yes to the two lamps of one name, maybe to clocks and no to all else; one call fails."""

    def script(body: Body, number: int) -> Act:
        text = text_of(body)
        if "Orba globe" in text and "Sena vase" in text:
            return status(400, {"error": {"message": "no"}})
        return say("Maybe." if "Tik clock" in text else "Yes" if says_match(body) else "No")

    with serving(script) as (url, heard):
        done = call("filter", train, "--out", tmp_path / "kept", "--set", "by=label", *by(url))
    assert done.exit_code == 0, done.output
    assert all("Say Yes or No" in text for text in heard.texts())
    assert set(rows_of(tmp_path / "kept")) == {"train-000000", "train-000001"}
    manifest = read_manifest(tmp_path / "kept")
    assert manifest.counts == {"samples": 2, "matches": 1}
    assert manifest.dropped == {
        "the model says another label": 1,
        "the reply is neither yes nor no": 2,
        "the annotator gave no reply": 1,
    }


def test_the_second_filter_keeps_what_is_worth_learning(train: Path, tmp_path: Path) -> None:
    def script(body: Body, number: int) -> Act:
        return say("Yes." if "Orba" in text_of(body) else "No, not this.")

    with serving(script) as (url, _):
        done = call("filter", train, "--out", tmp_path / "kept", "--set", "by=interesting", *by(url))
        assert done.exit_code == 0, done.output
        with_none = call("filter", tmp_path / "kept", "--out", tmp_path / "x", "--set", "by=label", *by(url))
    assert set(rows_of(tmp_path / "kept")) == {"train-000001", "train-000002", "train-000003"}
    assert rows_of(tmp_path / "kept")["train-000002"] == rows_of(train)["train-000002"]
    assert with_none.exit_code == 0, "yes to all: the one match is left"
    assert set(rows_of(tmp_path / "x")) == {"train-000002"}


def test_invented_pairs_are_checked_one_by_one(train: Path, tmp_path: Path) -> None:
    lamp, other = {"title": "Lumo LX-30", "brand": "Lumo", "price": 5}, {"title": "LX30 by Lumo", "brand": None}
    known = {"title": "Lumo LX-20 lamp", "brand": "Lumo", "price": "20"}, {"title": "Lumo lamp LX20", "brand": "Lumo",
                                                                           "price": "21"}  # fmt: skip
    lines = [
        {"match": True, "left": lamp, "right": other},
        {"match": False, "left": lamp, "right": {"title": "LUMO lx 30", "brand": "lumo", "price": "5"}},  # the same
        {"match": False, "left": lamp, "right": {"maker": "Lumo"}},  # another attribute
        {"match": True, "left": known[0], "right": known[1]},  # a pair that was given
        {"match": "yes", "left": lamp, "right": other},  # no truth value
    ]
    reply = "Here they are:\n" + "\n".join(f"- {json.dumps(line)}" for line in lines)

    def script(body: Body, number: int) -> Act:
        given = text_of(body).rsplit("\n", 1)[0] if "examples" in text_of(body) else text_of(body)
        return say(reply if "Lumo LX-20 lamp" in given.splitlines()[2] and "LX20" in given else "I would rather not.")

    with serving(script) as (url, heard):
        options = ("--set", "style=similar", "--set", "examples=1", "--set", "with_given=true", *by(url))
        done = call("generate", train, "--out", tmp_path / "new", *options)
    assert done.exit_code == 0, done.output
    manifest = read_manifest(tmp_path / "new")
    assert manifest.counts == {"samples": 7, "new": 1, "new_matches": 1}
    assert manifest.dropped == {
        "no pair in JSON": 6,
        "both records are the same": 1,
        "other attributes": 1,
        "was there before": 1,
    }
    first = rows_of(tmp_path / "new")["train-000000/new-0"]
    assert first.reference == "Yes" and first.prompt.endswith(
        "First lamp: Lumo LX-30; Lumo; 5\nSecond lamp: LX30 by Lumo"
    )
    assert all(len(text.splitlines()) == 4 for text in heard.texts()), "the task, a gap, the pair and one example"


def test_the_nearest_come_by_turns_and_none_twice() -> None:
    likeness = np.array([[0.9, 0.1, 0.8, 0.2], [0.9, 0.3, 0.1, 0.7]])
    assert round_robin(likeness, 3) == [0, 2, 3]
    assert round_robin(likeness, 9) == [0, 2, 3, 1]


def test_errors_draw_what_is_like_them_out_of_the_pool(train: Path, tmp_path: Path) -> None:
    wrong = pair({"title": "Zenit camera 11"}, {"title": "Zenit camera 12"}, match=False, name="valid-1")
    right = pair({"title": "Moka pot"}, {"title": "Moka pot, 3 cups"}, match=True, name="valid-2")
    folder = tmp_path / "eval/matching"
    folder.mkdir(parents=True)
    (tmp_path / "valid").mkdir()
    write_samples(tmp_path / "valid", [make_sample(one) for one in (wrong, right)])
    write_rule(StringRule(threshold=0.5, rows=6, f1=1.0), tmp_path / "valid")
    samples = get_benchmark("matching", BenchmarkOptions(tmp_path / "valid")).samples()
    rows = [sample for sample in samples if sample.id.endswith("/simple-free")]
    write_samples(folder, rows)  # as an evaluation keeps them
    values = ({"false_positive": 1.0}, {"false_positive": 0.0, "false_negative": 0.0, "unparsed": 0.0})
    write_rows(
        folder / "scores.jsonl",
        [Score(sample_id=s.id, cluster="", values=dict(v)) for s, v in zip(rows, values, strict=True)],
    )
    titles = ("Zenit camera 13", "Moka pot, steel", "Zenit lens", "Teapot")
    pool = [pair({"title": t}, {"title": f"{t} new"}, match=False, name=f"pool-{n}") for n, t in enumerate(titles)]
    (tmp_path / "pool").mkdir()
    write_samples(tmp_path / "pool", [*(make_sample(one) for one in pool), rows_of(train)["train-000000"]])
    select_options = ("--set", f"errors={folder}", "--set", f"pool={tmp_path / 'pool'}")
    done = call("select", train, "--out", tmp_path / "more", "--set", "count=2", *select_options)
    assert done.exit_code == 0, done.output
    assert [name for name in rows_of(tmp_path / "more") if name.startswith("pool")] == ["pool-0", "pool-2"]
    assert read_manifest(tmp_path / "more").counts == {"samples": 8, "added": 2, "added_matches": 0, "errors": 1}
    too_many = call("select", train, "--out", tmp_path / "all", *select_options)
    assert too_many.exit_code == 2 and "4 pairs are new, but 6 are needed" in too_many.stderr
    none = call("select", train, "--out", tmp_path / "no", "--set", f"errors={tmp_path}", "--set", f"pool={train}")
    assert none.exit_code == 2 and "has no scores.jsonl" in none.stderr


def test_samples_of_another_sort_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path, [Sample(id="a", prompt="What is it?", reference="A lamp.")])
    words = ("--set", "format=structured", "--set", "annotator=null")
    done = call("explain", tmp_path, "--out", tmp_path / "out", *words)
    assert done.exit_code == 2 and "sample 'a' is not about a pair of records" in done.stderr
    assert done.stderr.count("\n") == 1
