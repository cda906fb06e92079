"""Pairs as samples of further pairs: the truth stays with them, so that an oracle can judge them."""

from pathlib import Path

from typer.testing import CliRunner

from sightline.cli import app
from sightline.data.samples import read_samples
from sightline.lab.samples import ScenesConfig, write_scenes
from sightline.records import Pair, read_rows


def test_the_chosen_answers_of_pairs_are_rewritten_by_the_truth(tmp_path: Path) -> None:
    write_scenes(ScenesConfig(), "preference", 12, tmp_path / "scenes", lambda done, total: None)
    for builder, source in (("altered", "scenes"), ("corrupted", "altered")):
        words = ["pairs", builder, "--samples", str(tmp_path / source), "--out", str(tmp_path / builder)]
        result = CliRunner().invoke(app, [*words, "--set", "writer.name=oracle"])
        assert result.exit_code == 0, result.output
    first, second = (
        {pair.cluster: pair for pair in read_rows(tmp_path / name / "pairs.jsonl", Pair)}
        for name in ("altered", "corrupted")
    )
    assert second and all(second[cluster].chosen == first[cluster].chosen for cluster in second)
    scenes = {sample.id: sample.truth for sample in read_samples(tmp_path / "scenes")}
    again = {sample.cluster: sample.truth for sample in read_samples(tmp_path / "altered")}
    assert all(truth == {**scenes[cluster], "rejected": first[cluster].rejected} for cluster, truth in again.items())


def test_a_truth_that_is_none_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(
        Pair(
            id="1",
            images=(),
            prompt="What?",
            chosen="Yes.",
            rejected="No.",
            builder="own",
            provenance={"truth": "nothing"},
        ).model_dump_json()
        + "\n"
    )
    assert next(read_samples(tmp_path)).truth == {"rejected": "No."}
