"""Training on pairs that the policy makes: real samples of the tiny model, a real judge, kills and pauses."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sightline.data.samples import write_samples
from sightline.errors import InputError
from sightline.judges import reward as self_judge
from sightline.judges.judge import Verdict
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import JudgeInput, make_prefix
from sightline.records.manifest import read_manifest
from sightline.records.rows import Pair, Sample
from sightline.train.config.source import OnlineBDHSConfig, OnlineConfig
from sightline.train.data import make_examples
from sightline.train.log import read_log
from sightline.train.run import train
from sightline.train.streams import make_stream
from tests.train.adapter_server import serving_adapters
from tests.train.test_run import assert_same_adapter, check_kills, config_with, one_thread, write_pairs

__all__ = ["one_thread"]  # a fixture
ONLINE = "{name: online, judge: {name: self}, max_new_tokens: 6, unfinished: true, every: 2}"
BDHS = "{name: bdhs, rho: 0.9, tries: 2, max_new_tokens: 6}"
MIXED = f"{{name: mixed, p: 0.5, second: {ONLINE}}}"


@pytest.fixture
def pairs_dir(pairs: list[Pair], tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs", pairs)


@pytest.mark.parametrize("second", [ONLINE, BDHS])
def test_with_the_coin_on_one_side_the_weights_are_those_of_that_source_bit_for_bit(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, second: str
) -> None:
    runs = {
        name: train(model_dir, pairs_dir, tmp_path / name, config_with("epochs=2", f"source={source}"), seed=4)
        for name, source in {
            "offline": "{name: offline}",
            "one": f"{{name: mixed, p: 1, second: {second}}}",
            "own": second,
            "zero": f"{{name: mixed, p: 0, second: {second}}}",
        }.items()
    }
    assert_same_adapter(runs["offline"], runs["one"])
    assert_same_adapter(runs["own"], runs["zero"])
    with pytest.raises(AssertionError):
        assert_same_adapter(runs["offline"], runs["own"])
    shares = {name: read_manifest(out).numbers.get("offline_share") for name, out in runs.items()}
    assert shares == {"offline": None, "one": 1.0, "own": None, "zero": 0.0}
    rows = list(read_log(runs["zero"] / "log.jsonl"))
    assert all(set(row.streams) == {"online" if second == ONLINE else "bdhs"} for row in rows)
    assert all(row.numbers["generated_tokens"] > 0 for row in rows)
    assert all(row.streams[name]["entropy"] == row.numbers["entropy"] > 0 for row in rows for name in row.streams)


def test_online_pairs_are_the_policys_samples_as_the_judge_ranks_them(
    model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    """Two samples of each prompt by seed; the chosen one is that which the judge scores higher."""
    vlm = load_vlm(model_dir)
    config = OnlineConfig.model_validate(
        {"name": "online", "judge": {"name": "self"}, "max_new_tokens": 6, "unfinished": True}
    )
    stream = make_stream(config, vlm, tmp_path, seed=3, autocast=False)
    examples = make_examples(pairs, [])
    first, again, later = stream.make(examples, 0), stream.make(examples, 0), stream.make(examples, 1)
    assert first == again
    texts = [[(pair.chosen, pair.rejected) for result in each for pair in result.pairs] for each in (first, later)]
    assert texts[0] and texts[0] != texts[1]
    judge = config.judge.open(RunContext(Path(), tmp_path, 0, vlm))
    for example, result in zip(examples, first, strict=True):
        assert result.sample_id == example.sample.id
        for pair in result.pairs:
            prefix = make_prefix(example.sample, Path())
            better, worse = judge.score([JudgeInput(prefix, pair.chosen), JudgeInput(prefix, pair.rejected)])
            assert better.score is not None and worse.score is not None and better.score > worse.score
            assert pair.id.endswith("@0") and pair.images == example.sample.images


def test_bdhs_pairs_are_those_of_the_builder_and_may_bring_the_external_one_along(
    model_dir: Path, pairs: list[Pair], tmp_path: Path
) -> None:
    vlm = load_vlm(model_dir)
    settings = {"name": "bdhs", "rho": 0.9, "tries": 2, "max_new_tokens": 6, "average": True}
    config = OnlineBDHSConfig.model_validate(settings)
    examples = make_examples(pairs, [])
    results = make_stream(config, vlm, tmp_path, seed=3, autocast=False).make(examples, 0)
    for each, pair in zip(results, pairs, strict=True):
        assert each.pairs[0].chosen == pair.chosen and each.pairs[0].second_rejected == pair.rejected
    assert len({each.pairs[0].rejected for each in results}) > 1


def test_tied_prompts_are_drawn_again_so_that_every_step_is_full(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A judge that ties two of three first attempts: real samples of the policy, drawn anew until they differ."""
    real = self_judge._Self.score

    def rounded(self: self_judge._Self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        ties = len(inputs[0].answer) % 3 > 0
        return [Verdict(0.0) for _ in inputs] if ties else real(self, inputs)

    def one_by_one(self: self_judge._Self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        return [verdict for start in range(0, len(inputs), 2) for verdict in rounded(self, inputs[start : start + 2])]

    monkeypatch.setattr(self_judge._Self, "score", one_by_one)
    found = {}
    for redraws in (0, 8):
        source = MIXED.replace("every: 2", f"every: 2, redraws: {redraws}")
        out = train(model_dir, pairs_dir, tmp_path / f"{redraws}", config_with("epochs=4", f"source={source}"), seed=4)
        rows, manifest = list(read_log(out / "log.jsonl")), read_manifest(out)
        offline = sum(row.streams.get("offline", {}).get("pairs", 0.0) for row in rows)
        assert manifest.numbers["offline_share"] == offline / sum(row.pairs for row in rows)
        for row in rows:
            assert row.numbers["offline_share"] == row.streams.get("offline", {}).get("pairs", 0.0) / row.pairs
        found[redraws] = (sum(row.pairs for row in rows), offline, sum(row.numbers.get("redrawn", 0.0) for row in rows))
    assert found[8][0] == 24 > found[0][0], "six prompts in each of four epochs"
    assert found[8][1] == found[0][1], "given pairs are those of the coin in both"
    assert found[8][2] > 0 == found[0][2]


def test_prompts_alone_are_enough(model_dir: Path, pairs_dir: Path, pairs: list[Pair], tmp_path: Path) -> None:
    rows = [
        Sample(id=pair.id, images=tuple(f"images/{Path(image).name}" for image in pair.images), prompt=pair.prompt)
        for pair in pairs
    ]
    write_samples(pairs_dir, rows)
    out = train(model_dir, None, tmp_path / "out", config_with("epochs=1", f"source={ONLINE}"), 0, pairs_dir)
    manifest = read_manifest(out)
    assert manifest.counts["prompts"] == 6 and set(manifest.inputs) == {"model", "samples"}


def test_what_a_source_lacks_is_one_sentence(model_dir: Path, pairs_dir: Path, tmp_path: Path) -> None:
    for source, given, match in (
        (ONLINE, None, "no pairs to train on; give them with --pairs, or prompts"),
        (MIXED, None, "no pairs to train on"),
        (BDHS.replace("}", ", average: true}"), None, "no pairs to train on"),
    ):
        with pytest.raises(InputError, match=match):
            train(model_dir, given, tmp_path / "out", config_with(f"source={source}"), 0)
    for source, match in (
        (MIXED.replace("0.5", "1.5"), r"source\.p = "),
        (MIXED.replace("0.5", "-0.1"), r"source\.p = "),
        (f"{{name: mixed, p: 0.5, second: {ONLINE}, first: {ONLINE}}}", "both streams of the mixture are online"),
        (ONLINE.replace("online", "onlin"), "onlin"),
        ("{name: online, judge: {name: self}, answers: 3, choose: comparison}", "a comparison is between two"),
    ):
        with pytest.raises(InputError, match=match):
            config_with(f"source={source}")


def test_a_judge_that_is_down_pauses_the_run_and_the_same_command_goes_on(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at the third refresh; inputs again, the run ends with the weights of one that was never paused."""
    config = config_with("epochs=3", f"source={ONLINE}", "checkpoint_every=100")
    straight = train(model_dir, pairs_dir, tmp_path / "straight", config, 6)
    real, left = self_judge._Self.score, [2]

    def failing(self: self_judge._Self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        if not left[0]:
            raise InputError("no server answers at http://127.0.0.1:9 (refused); start it, or correct base_url")
        left[0] -= 1
        return real(self, inputs)

    out = tmp_path / "paused"
    with monkeypatch.context() as patch:
        patch.setattr(self_judge._Self, "score", failing)
        with pytest.raises(InputError, match=r"step 4: no server answers.*nothing is lost: run the same command"):
            train(model_dir, pairs_dir, out, config, 6)
        assert json.loads((out / "checkpoint" / "step-00000004" / "state.json").read_text())["step"] == 4
    train(model_dir, pairs_dir, out, config, 6)
    assert_same_adapter(straight, out)
    assert [row.step for row in read_log(out / "log.jsonl")] == list(range(6))


@pytest.mark.parametrize("fault", [InputError("the judge is away"), KeyboardInterrupt()])
def test_at_the_end_and_when_it_ends_early_a_run_leaves_nothing_on_the_server(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    """The second refresh has handed its adapter over when the judge fails; another run's adapter is let be."""
    pytest.importorskip("openai")
    real, left = self_judge._Self.score, [1]

    def failing(self: self_judge._Self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
        if not left[0]:
            assert len(served.adapters) == 2 and (out / "rollouts").is_dir()
            raise fault
        left[0] -= 1
        return real(self, inputs)

    out = tmp_path / "out"
    with serving_adapters(model_dir) as (url, served):
        served.adapters["another"] = load_vlm(model_dir)
        source = ONLINE.replace("every: 2", f"every: 1, engine: {{name: server, base_url: '{url}'}}")
        config = config_with("epochs=1", f"source={source}")
        with monkeypatch.context() as patch:
            patch.setattr(self_judge._Self, "score", failing)
            with pytest.raises(type(fault)):
                train(model_dir, pairs_dir, out, config, 6)
            assert list(served.adapters) == ["another"] and not (out / "rollouts").exists()
        train(model_dir, pairs_dir, out, config, 6)
        assert list(served.adapters) == ["another"] and not (out / "rollouts").exists()
        assert len(served.calls("load_lora_adapter")) == 3, "one a refresh"
    assert [row.step for row in read_log(out / "log.jsonl")] == [0, 1]


def test_a_server_that_is_gone_at_the_end_costs_a_warning_and_no_weights(
    model_dir: Path, pairs_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openai")
    out, real = tmp_path / "out", self_judge._Self.score
    with serving_adapters(model_dir) as (url, served):

        def last(self: self_judge._Self, inputs: Sequence[JudgeInput]) -> list[Verdict]:
            served.gone = True
            return real(self, inputs)

        monkeypatch.setattr(self_judge._Self, "score", last)
        source = ONLINE.replace("}, max", f"}}, engine: {{name: server, base_url: '{url}'}}, max")
        train(model_dir, pairs_dir, out, config_with("max_steps=1", "epochs=null", f"source={source}"), 6)
    assert read_manifest(out).complete and (out / "adapter").is_dir() and not (out / "rollouts").exists()
    output = capfd.readouterr()
    assert (output.out + output.err).count("warning: no server answers at http://127.0.0.1") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_killed_at_random_a_mixed_run_ends_as_one_that_was_not(
    model_dir: Path, pairs_dir: Path, tmp_path: Path
) -> None:
    """Refreshed every fourth step, so that most checkpoints hold pairs of a former policy that wait for their step."""
    source = MIXED.replace("every: 2", "every: 4")
    check_kills(model_dir, pairs_dir, tmp_path, kills=1, seed=0, more=(f"source={source}",))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("source", ["{name: offline}", MIXED])
def test_killed_twenty_times(model_dir: Path, pairs_dir: Path, tmp_path: Path, source: str) -> None:
    check_kills(model_dir, pairs_dir, tmp_path, kills=20, seed=7, more=(f"source={source}",))
