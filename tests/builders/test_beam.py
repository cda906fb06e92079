"""CSR's search: best and worst by the stated reward, whatever the batch, on the lab's base model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sightline.builders.beam import BeamConfig, _Beam, _best_and_worst, build_beam
from sightline.builders.builder import BuildResult
from sightline.data.samples import read_samples
from sightline.judges.judge import OracleJudgeConfig
from sightline.lab import BASE
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.requests import ScoreRequest, make_prefix
from sightline.models.scorer import answer_logps
from sightline.records import Sample


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> RunContext:
    folder = tmp_path_factory.mktemp("beam") / "samples"
    write_scenes(ScenesConfig(described=1.0), "validation", 6, folder)
    return RunContext(folder, folder / "views", 0, load_vlm(BASE))


@pytest.fixture(scope="module")
def samples(context: RunContext) -> list[Sample]:
    return list(read_samples(context.folder))


def config(**changes: Any) -> BeamConfig:
    settings = {"judge": {"name": "oracle"}, "beams": 1, "branches": 3, "sentences": 3, "max_new_tokens": 40}
    return BeamConfig.model_validate({**settings, **changes})


@pytest.fixture(scope="module")
def results(context: RunContext, samples: list[Sample]) -> list[BuildResult]:
    return list(build_beam(samples, context, config()))


def test_the_best_has_the_higher_reward_and_fewer_mistakes(results: list[BuildResult], samples: list[Sample]) -> None:
    pairs = [pair for one in results for pair in one.pairs]
    assert [one.sample_id for one in results] == [sample.id for sample in samples] and len(pairs) >= 5
    for pair in pairs:
        assert pair.provenance["chosen_reward"] > pair.provenance["rejected_reward"]
    assert all(one.tallies["generated_tokens"] > 0 for one in results)


def test_rows_do_not_depend_on_their_company(
    results: list[BuildResult], context: RunContext, samples: list[Sample]
) -> None:
    alone = list(build_beam(samples[2:4], context, config(wave=1, batch_size=2)))
    for one, other in zip(alone, results[2:4], strict=True):
        assert [(p.chosen, p.rejected) for p in one.pairs] == [(p.chosen, p.rejected) for p in other.pairs]


def test_a_sentences_reward_is_the_stated_sum(context: RunContext, samples: list[Sample]) -> None:
    """One sentence, lambda 0 and 1: R_T by hand from the scorer, R_I from the judge."""
    sample = samples[0]
    for weight in (0.0, 1.0):
        (one,) = build_beam([sample], context, config(sentences=1, image_weight=weight))
        (pair,) = one.pairs
        for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            if weight:
                judge = OracleJudgeConfig(name="oracle").open(context)
                from sightline.models.requests import judge_input

                wanted = judge.score([judge_input(sample, context.folder, text)])[0].score
            else:
                blind = type(make_prefix(sample, context.folder))((), sample.prompt)
                with torch.no_grad():
                    values = answer_logps(context.vlm, [ScoreRequest(blind, (text,))]).values[0, 0, :-1]
                wanted = float(values.mean().exp())
            assert pair.provenance[f"{side}_reward"] == pytest.approx(wanted, rel=1e-3)


def test_both_ends_go_on_and_no_text_twice() -> None:
    beams = [_Beam(str(number), (float(number),)) for number in (3, 1, 4, 1, 5, 9, 2, 6)]
    assert [beam.text for beam in _best_and_worst(beams, 2)] == ["9", "6", "2", "1"]
    assert len(_best_and_worst(beams[:3], 2)) == 3
    assert _Beam("a", (1.0, 2.0)).mean == 1.5


class _Silent:
    identity = "silent"

    def score(self, inputs: Sequence[Any]) -> list[Any]:
        from sightline.judges.judge import Verdict

        return [Verdict(None, note="no answer") for _ in inputs]


def test_what_no_judge_scores_is_dropped(
    context: RunContext, samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OracleJudgeConfig, "open", lambda self, context: _Silent())
    (one,) = build_beam(samples[:1], context, config(sentences=1))
    assert one.dropped == "the judge scored no sentence" and one.tallies["unscored_sentences"] == 3


def test_too_long_for_the_model(context: RunContext, samples: list[Sample], tmp_path: Path) -> None:
    (one,) = build_beam(samples[:1], context, config(max_new_tokens=4000))
    assert one.dropped == "too long for the model"
