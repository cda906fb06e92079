"""Reading of replies by the owners' rules with their quirks, and the prompts of each judge."""

from pathlib import Path

import pytest

from sightline.errors import InputError
from sightline.evals.benches.hallusionbench import GRADING as HALLUSION
from sightline.evals.benches.llava_bench import read_grades
from sightline.evals.benches.mmhal import read_rating
from sightline.evals.benches.mmvet import GRADING as MMVET
from sightline.evals.benches.mmvet import read_grade
from sightline.evals.benchmark import BenchmarkOptions
from sightline.evals.judging.judge_client import EvalJudgeConfig
from sightline.evals.judging.protocols import Case, Grading, read_prompt
from sightline.evals.judging.verdicts import JudgedBenchmark
from sightline.evals.registry import BENCHMARKS, get_benchmark
from tests.evals.benches.official_files import write_json
from tests.evals.judging.conftest import judge_at
from tests.evals.judging.folders import coco_folder, llava_folder, mmhal_folder


@pytest.mark.parametrize(
    ("reply", "rating"),
    [
        ("It is false.\nRating: 2, very informative, with hallucination", 2),
        ("**RATING: 6**", 6),
        ("Rating: 3 or Rating: 4", None),  # two of them
        ("Rating: 4. As I said, rating: 4", 4),  # one, said twice
        ("Rating 4", None),
        ("Rating:4", None),  # the space belongs to it
        ("Rating: 7", None),
        ("Rating: 10", 1),  # a 1 is found in it
        ("", None),
    ],
)
def test_mmhals_rating(reply: str, rating: float | None) -> None:
    assert read_rating(reply) == (None if rating is None else {"rating": rating})


@pytest.mark.parametrize(
    ("reply", "grades"),
    [
        ("8 7\nBecause.", (8, 7)),
        ("8.5,7", (8.5, 7)),
        ("8, 7\nBecause.", None),  # the comma becomes a second space
        ("8 7 ", None),
        ("8 7 6", None),
        ("8", None),
        ("Assistant 1: 8", None),
        ("eight seven", None),
        ("\n8 7", None),
        ("-1 -1", None),
        ("nan 7", None),
    ],
)
def test_llava_benchs_first_line(reply: str, grades: tuple[float, float] | None) -> None:
    assert read_grades(reply) == (None if grades is None else {"reference": grades[0], "model": grades[1]})


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("0.5", 0.5),
        (" 1.0\n", 1.0),
        ("1", 1.0),
        ("0.7 since it", 0.7),
        (".3", 0.3),
        ("1.1", None),
        ("-0.1", None),
        ("0.5.", None),
        ("Correctness: 0.5", None),
        ("nan", None),
        ("", None),
    ],
)
def test_mm_vets_first_word(reply: str, grade: float | None) -> None:
    assert read_grade(reply) == (None if grade is None else {"grade": grade})


def test_a_prompt_is_filled_in_one_pass() -> None:
    case = Case("Q {answer}?", "an {question} answer", reference="the {context}")
    assert MMVET.text(case).endswith("\nQ {answer}? | the {context} | an {question} answer | ")
    assert MMVET.text(case, again=True).endswith("answer | \nThe grade is a number from 0.0 to 1.0: ")
    assert HALLUSION.text(case).endswith(
        "Question: Q {answer}?\nTruth: the {context}\nAnswer: an {question} answer\nVerdict:"
    )


def judged(name: str, folder: Path) -> JudgedBenchmark:
    benchmark = get_benchmark(name, BenchmarkOptions(folder))
    assert isinstance(benchmark, JudgedBenchmark)
    return benchmark


def test_the_reading_and_the_seeing_judge_differ_in_what_they_are_told(tmp_path: Path) -> None:
    blind, sighted = (judged(name, mmhal_folder(tmp_path / "data")).grading for name in ("mmhal", "mmhal-v"))
    assert (blind.shows_image, sighted.shows_image) == (False, True)
    assert "you do not see it" in blind.prompt and "you see it" in sighted.prompt
    assert blind.identity != sighted.identity and "{sight}" not in blind.prompt + sighted.prompt


def test_llava_bench_takes_the_owners_rules_from_the_users_folder(tmp_path: Path) -> None:
    own = judged("llava-bench", llava_folder(tmp_path / "data")).grading
    case = Case("Q?", "A.", reference="R.", context="C.", category="conv")
    assert own.text(case).startswith("[What the picture shows]\nC.\n\n[Question]\nQ?\n\n[Answer 1]\nR.\n\n")
    rules = {f"llava_bench_{c}": {"role": "Assistant", "prompt": f"Judge {c}."} for c in ("conv", "detail", "complex")}
    write_json(tmp_path / "data/rule.json", rules)
    theirs = judged("llava-bench", tmp_path / "data").grading
    assert theirs.text(case) == (
        "[Context]\nC.\n\n[Question]\nQ?\n\n[Assistant 1]\nR.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nA.\n\n[End of Assistant 2]\n\n[System]\nJudge conv.\n\n"
    )
    assert theirs.identity != own.identity
    del rules["llava_bench_detail"]
    write_json(tmp_path / "data/rule.json", rules)
    with pytest.raises(InputError, match="there is no rule 'llava_bench_detail'"):
        get_benchmark("llava-bench", BenchmarkOptions(tmp_path / "data"))


def test_what_a_picture_shows_is_captions_and_boxes(tmp_path: Path) -> None:
    wild = get_benchmark("llava-bench", BenchmarkOptions(llava_folder(tmp_path / "wild")))
    assert [sample.truth["context"] for sample in wild.samples()][::2] == ["A hill.", "A sea.\nA boat."]
    (sample,) = get_benchmark("llava-bench-coco", BenchmarkOptions(coco_folder(tmp_path / "coco"))).samples()
    assert sample.truth["context"] == "Two old cases.\nCases on a floor.\n\nsuitcase: [0.1, 0.2, 0.3, 0.4]"


def test_the_judges_identity_hangs_on_model_prompt_and_rule(tmp_path: Path) -> None:
    own = Grading(name="g", prompt="{answer}", read=read_grade, worth=lambda reading: 0.0)
    (tmp_path / "p.txt").write_text("Is it {answer}?")

    def identity(grading: Grading = own, url: str = "http://a/v1", **settings: object) -> str:
        config: EvalJudgeConfig = judge_at(url, **settings)  # type: ignore[arg-type]
        return config.identity(grading)

    same = {identity(), identity(url="http://b/v1"), identity(runs=3), identity(prompt_price=1.0)}
    other = {
        identity(server={"model": "n"}),
        identity(server={"temperature": 0.2}),
        identity(prompt=tmp_path / "p.txt"),
        identity(Grading(name="g", prompt="{answer}", read=read_grade, worth=lambda reading: 0.0, rule=2)),
        identity(Grading(name="g", prompt="{answer}.", read=read_grade, worth=lambda reading: 0.0)),
        identity(Grading(name="g", prompt="{answer}", read=read_grade, worth=lambda reading: 0.0, shows_image=True)),
    }
    assert len(same) == 1 and len(same | other) == 7


def test_an_official_prompt_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "official.txt"
    file.write_text("Contents {}\nQuestion {}\nAnswer {}\nResponse {}\n")
    assert read_prompt(file) == "Contents {context}\nQuestion {question}\nAnswer {reference}\nResponse {answer}\n"
    file.write_text("Judge it.")
    with pytest.raises(InputError, match=r"no \{answer\}; write \{context\}, \{question\}"):
        read_prompt(file)
    with pytest.raises(InputError, match="the judge's prompt cannot be read"):
        read_prompt(tmp_path / "none.txt")


def test_every_judged_benchmark_says_how_to_have_it_graded() -> None:
    names = {name for name in BENCHMARKS if "judge" in BENCHMARKS[name].help or "GPT-4" in BENCHMARKS[name].help}
    assert names == {"hallusionbench", "mmhal", "mmhal-v", "llava-bench", "llava-bench-coco", "mm-vet"}
