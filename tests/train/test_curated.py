"""Curation end to end on a tiny model: graded pairs, two reward models, the filter, supervised tuning."""

from pathlib import Path

from typer.testing import CliRunner

from sightline.builders.build import BuildPlan, build_dataset
from sightline.cli import app
from sightline.config import load_config
from sightline.data.samples import read_samples, write_samples
from sightline.judges.reward import RewardJudgeConfig
from sightline.lab.samples import ScenesConfig, lab_samples
from sightline.models.context import RunContext
from sightline.models.loading import load_vlm
from sightline.models.scalar_head import load_head
from sightline.models.spec import to_spec
from sightline.recipes.curation.conversations import group_conversations, question_input
from sightline.recipes.curation.graded import GRADED
from sightline.recipes.curation.run import SCORES, RankedConversation
from sightline.records import read_manifest, read_rows
from sightline.train.config import TrainConfig
from sightline.train.run import train

STEPS = ("optim.lr=0.01", "lora.rank=4", "batch_size=8", "max_steps=2", "device=cpu")


def test_from_grades_to_a_tuned_model(model_dir: Path, tmp_path: Path) -> None:
    noise = {"bad_questions": 0.5, "bad_answers": 0.5, "questions": 2}
    config = ScenesConfig.model_validate({"instructions": noise})
    write_samples(tmp_path / "data", lab_samples(config, "preference", 10, tmp_path / "data"))
    for by in ("questions", "answers"):
        overrides = [f"by={by}", "judge.name=oracle", "augment=1.0"]
        graded = load_config(GRADED.config, None, overrides)
        build_dataset(BuildPlan(GRADED, graded), None, tmp_path / "data", tmp_path / f"pairs-{by}")
        learning = load_config(TrainConfig, None, [*STEPS, "loss.name=reward", "optim.head_lr=0.1"])
        train(model_dir, tmp_path / f"pairs-{by}", tmp_path / by, learning, 0)
    judges = [
        word
        for by in ("questions", "answers")
        for word in (
            *("--set", f"{by}.judge={{name: reward, model: {model_dir}, adapter: {tmp_path / by / 'adapter'}}}"),
            *("--set", f"{by}.keep=0.5"),
        )
    ]
    done = CliRunner().invoke(app, ["curate", str(tmp_path / "data"), "--out", str(tmp_path / "kept"), *judges])
    assert done.exit_code == 0, done.output
    rows = list(read_rows(tmp_path / "kept" / SCORES, RankedConversation))
    assert len({row.question for row in rows}) > 3, "the reward model tells questions apart"
    first = next(iter(read_samples(tmp_path / "data")))
    vlm = load_vlm(model_dir, adapter=tmp_path / "questions/adapter")
    assert load_head(vlm, "reward", tmp_path / "questions/adapter").weight.abs().max() > 0
    judge = RewardJudgeConfig(name="reward", model=to_spec(model_dir), adapter=tmp_path / "questions/adapter")
    inputs = [question_input(first, tmp_path / "data", turn) for turn in group_conversations([first])[0].questions]
    scores = [verdict.score or 0.0 for verdict in judge.open(RunContext(tmp_path, tmp_path, 0)).score(inputs)]
    logged_score = next(row.question for row in rows if row.id == first.id)
    assert logged_score is not None and abs(logged_score - sum(scores) / len(scores)) < 1e-5
    tuned = train(
        model_dir,
        None,
        tmp_path / "tuned",
        load_config(TrainConfig, None, [*STEPS, "loss.name=sft"]),
        0,
        tmp_path / "kept",
    )
    assert read_manifest(tuned).counts["pairs"] == read_manifest(tmp_path / "kept").counts["samples"]
