"""Evaluations by a server in the model's place: answers and scores of the model itself, adapters, failures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from sightline.cli import app
from sightline.endpoint import GenerationServerConfig
from sightline.evals.directory import read_evaluation
from sightline.evals.registry import BENCHMARKS
from sightline.evals.run import EvalConfig, evaluate
from sightline.evals.served import REFUSED, REPLIES
from sightline.evals.shards import merge_evaluations
from sightline.lab import BASE
from sightline.models.adapters import LoraSettings, add_lora, save_adapter
from sightline.models.loading import load_vlm
from sightline.records import read_manifest
from tests.apps.serving import serving_model
from tests.evals.shapes import SHAPES_ENTRY
from tests.judges.local_server import status
from tests.models.tiny import save_tiny_llava
from tests.train.adapter_server import Served, serving_adapters
from tests.train.test_rollout_backends import stir

pytest.importorskip("openai")
CONFIG = EvalConfig(benchmarks=("shapes", "shapes-ask"), limit=4, resamples=200)
FILES = ("answers.jsonl", "scores.jsonl", "estimates.json", "samples.jsonl")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONFIG.benchmarks:
        monkeypatch.setitem(BENCHMARKS, name, SHAPES_ENTRY)


@pytest.fixture
def server(model: Path) -> Iterator[tuple[str, Served]]:
    with serving_adapters(model, name="tiny") as found:
        yield found


def at(url: str) -> GenerationServerConfig:
    return GenerationServerConfig(base_url=url, retries=0, concurrency=2)


def assert_same(found: Path, own: Path, files: Sequence[str] = FILES) -> None:
    for name in CONFIG.benchmarks:
        for file in files:
            assert (found / name / file).read_bytes() == (own / name / file).read_bytes(), file


def test_a_server_gives_the_answers_and_scores_of_the_model(
    model: Path, server: tuple[str, Served], tmp_path: Path
) -> None:
    """Whole, and in two shards that are merged."""
    own = evaluate(model, tmp_path / "own", CONFIG)
    found = evaluate(at(server[0]), tmp_path / "found", CONFIG)
    assert_same(found, own)
    manifest = read_manifest(found)
    assert manifest.complete and manifest.config["endpoint"]["served"] == "tiny" and "model" not in manifest.inputs
    assert manifest.numbers["server_requests"] == len(server[1].calls("chat/completions")) == 12
    assert not (found / REPLIES).exists()
    parts = [
        evaluate(at(server[0]), tmp_path / shard[0], CONFIG.model_copy(update={"shard": shard}))
        for shard in ("0/2", "1/2")
    ]
    merge_evaluations(parts, tmp_path / "merged")
    assert_same(tmp_path / "merged", own, FILES[:3])  # its images are the first shard's


def test_a_server_loads_the_adapter_for_the_time_of_the_run(
    model: Path, server: tuple[str, Served], tmp_path: Path
) -> None:
    vlm = add_lora(load_vlm(model), LoraSettings(4, 8.0), seed=1)
    stir(vlm, 3)
    save_adapter(vlm, tmp_path / "adapter")
    own = evaluate(model, tmp_path / "own", CONFIG, adapter=tmp_path / "adapter")
    found = evaluate(at(server[0]), tmp_path / "found", CONFIG, adapter=tmp_path / "adapter")
    assert_same(found, own)
    assert not server[1].adapters and len({body["model"] for body in server[1].calls("chat/completions")}) == 1
    assert read_manifest(found).inputs["adapter"] == read_manifest(own).inputs["adapter"]


def test_failed_answers_are_unscored_and_tried_again(
    server: tuple[str, Served], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, served = server
    benchmark = "shapes-ask"

    def fault(busy: bool) -> None:
        calls = iter(range(100))

        def act(body: dict[str, object]) -> object:
            number = next(calls)
            if busy and number == 2:
                return status(503, {"error": {"message": "overloaded"}})
            refused = "triangle" in str(body["messages"])
            return status(400, {"error": {"message": "no triangles"}}) if refused else None

        served.fault = act  # type: ignore[assignment]

    fault(busy=True)
    evaluate(at(url), tmp_path / "out", CONFIG)
    assert not read_manifest(tmp_path / "out").complete
    shown = capsys.readouterr().err
    assert "1 answers may succeed later and are unscored; run the same command again" in " ".join(shown.split())
    refused = sum("triangle" in sample.prompt for sample in read_evaluation(tmp_path / "out")[benchmark].samples)
    before = len(served.calls("chat/completions"))
    fault(busy=False)
    evaluate(at(url), tmp_path / "out", CONFIG)
    manifest = read_manifest(tmp_path / "out")
    assert len(served.calls("chat/completions")) == before + 1 + refused
    assert manifest.complete and manifest.dropped == ({REFUSED: refused} if refused else {})
    results = read_evaluation(tmp_path / "out")
    assert len(results["shapes"].answers) == 4
    assert [answer.sample_id for answer in results["shapes"].answers] == [row.id for row in results["shapes"].samples]
    assert (
        len(results[benchmark].answers) == 8 - refused and results[benchmark].estimates["accuracy"].unscored == refused
    )
    assert refused and "no triangles" in manifest.warnings[0]


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_either_a_model_or_a_server(model: Path, tmp_path: Path) -> None:
    common = ("eval", "--bench", "shapes", "--out", tmp_path / "out")
    server = ("--endpoint", "http://127.0.0.1:9/v1")
    for words, sentence in (
        ((), "give either --model or --endpoint"),
        (("--model", model, *server), "give either --model or --endpoint"),
        (("--model", model, "--concurrency", 3), "name it with --endpoint"),
        (("--endpoint", "nowhere"), "must be an address such as"),
        ((*server, "--endpoint-set", "retires=3"), "retries"),
        ((*server, "--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY"),
        (server, "no server answers at"),
    ):
        refused = call(*common, *words)
        assert refused.exit_code == 2 and sentence in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_labs_own_model_by_sightline_serve(tmp_path: Path) -> None:
    """The command of docs/guides/scale.md: `sightline serve` answers as the model in this process does."""
    pytest.importorskip("fastapi")
    common = ("eval", "--bench", "lab-vqa", "--data", tmp_path / "data", "--limit", 6, "--set", "resamples=200")
    own = call(*common, "--out", tmp_path / "own", "--model", BASE)
    assert own.exit_code == 0, own.output
    # On disk the weights are bfloat16, in which Transformers would compute; this process computes in float32.
    with serving_model(tmp_path / "serve.log", "lab", "--set", "device=cpu", "--set", "dtype=float32") as address:
        found = call(*common, "--out", tmp_path / "found", "--endpoint", address)
        assert found.exit_code == 0, found.output
    assert read_manifest(tmp_path / "found").config["endpoint"]["served"] == BASE.name
    results = [read_evaluation(tmp_path / name)["lab-vqa"] for name in ("own", "found")]
    texts = [[(answer.sample_id, answer.text.strip(), answer.finished) for answer in each.answers] for each in results]
    assert texts[0] == texts[1] and len(texts[0]) > 6
    # The server counts the token that ends the turn or not; we do.
    values = [[{**score.values, "tokens": None} for score in each.scores] for each in results]
    assert values[0] == values[1]
