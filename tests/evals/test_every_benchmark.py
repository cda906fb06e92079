"""Every benchmark of the registry scores by a pure function of sample and answer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from sightline.config import load_config
from sightline.evals.benchmark import Benchmark, BenchmarkOptions
from sightline.evals.judging.verdicts import JudgedBenchmark, Verdicts, hash_text
from sightline.evals.registry import BENCHMARKS, get_benchmark
from sightline.evals.scoring import score_answer
from sightline.recipes.matching.entities.reading import ReadConfig, read_entities
from sightline.records.rows import Answer, Sample, Score
from tests.data.entities.rows import write_deepmatcher
from tests.evals.benches.official_files import hallusion_rows, mme_release, write_json
from tests.evals.benches.pope_lists import write_lists
from tests.evals.judging.folders import coco_folder, llava_folder, mmhal_folder, mmvet_folder

#: What is answered to every sample, beside its own truth: right to some, wrong to others, nothing, and much.
TEXTS = (
    "Yes, there is.",
    "No.",
    "B",
    "A red cup and a dog stand by a car; two blue pans, a man under the sky and a bird.",
    "blue",
    "",
)
#: Replies that the judge of a benchmark could give, to the answers by turns.
REPLIES: dict[str, tuple[str, ...]] = {
    "mmhal": ("Rating: 4", "Rating: 0", "no rating"),
    "mmhal-v": ("Rating: 6", "Rating: 1", "no rating"),
    "llava-bench": ("8 7\nGood.", "8 2\nBad.", "none"),
    "llava-bench-coco": ("8 7\nGood.", "8 2\nBad.", "none"),
    "mm-vet": ("1.0", "0.3", "none"),
    "hallusionbench": ("correct", "incorrect", "unclear"),
}


def lab_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def amber_folder(folder: Path) -> Path:
    rows = [
        {"id": 1, "type": "generative", "truth": ["sky", "dog"], "hallu": ["person", "boat"]},
        {"id": 2, "type": "generative", "truth": ["cup"], "hallu": ["sky"]},
        {"id": 1005, "type": "discriminative-attribute-state", "truth": "yes"},
        {"id": 1006, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 1007, "type": "relation", "truth": "yes"},
    ]
    write_json(folder / "annotations.json", rows)
    write_json(folder / "relation.json", {"sky": ["cloud"], "dog": ["puppy"], "person": ["man"], "cup": [], "boat": []})
    (folder / "safe_words.txt").write_text("light\n")
    queries = [{"id": row["id"], "image": f"AMBER_{row['id']}.jpg", "query": f"Question {row['id']}?"} for row in rows]
    write_json(folder / "query/query_all.json", queries)
    return folder


def captions_folder(folder: Path) -> Path:
    images = [{"id": number, "file_name": f"COCO_val2014_{number:012d}.jpg"} for number in (1, 2)]
    names = {1: "person", 17: "cat", 18: "dog"}
    instances = {
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "annotations": [{"image_id": 1, "category_id": 18}, {"image_id": 2, "category_id": 17}],
    }
    captions = [{"image_id": 1, "caption": "A man walks his puppy."}, {"image_id": 2, "caption": "A kitten in a cup."}]
    write_json(folder / "annotations/instances_val2014.json", instances)
    write_json(folder / "annotations/captions_val2014.json", {"images": images, "annotations": captions})
    return folder


def gqa_folder(folder: Path) -> Path:
    types = {"structural": "query", "semantic": "attr", "detailed": "x"}
    kept = {"isBalanced": True, "types": types}
    rows = {
        "q1": {"imageId": "n1", "question": "Which color?", "answer": "blue", **kept},
        "q2": {"imageId": "n1", "question": "Is it?", "answer": "no", **kept},
    }
    write_json(folder / "testdev_balanced_questions.json", rows)
    return folder


def textvqa_folder(folder: Path) -> Path:
    questions = [("aa", "Which letter?", ["B"] * 4 + ["c"] * 6), ("bb", "Which color?", ["blue"] * 10)]
    rows = [
        {"question_id": number, "image_id": image, "question": question, "answers": answers}
        for number, (image, question, answers) in enumerate(questions)
    ]
    write_json(folder / "TextVQA_0.5.1_val.json", {"data": rows})
    return folder


def scienceqa_folder(folder: Path) -> Path:
    problem = {"question": "Which?", "choices": ["one", "two"], "hint": "", "image": "image.png", "split": "test"}
    write_json(folder / "problems.json", {"4": {**problem, "answer": 1}, "5": {**problem, "answer": 0}})
    write_json(folder / "pid_splits.json", {"test": ["4", "5"]})
    return folder


def mme_folder(folder: Path) -> Path:
    return mme_release(folder, {"existence": [("001", "Is there a cup?", "Yes"), ("001", "Is there a dog?", "No")]})


def hallusion_folder(folder: Path) -> Path:
    rows = hallusion_rows(
        ("VS", "0", "0", "0", "0", "1"), ("VS", "0", "1", "0", "1", "1"), ("VD", "0", "0", "0", "1", "0")
    )
    write_json(folder / "HallusionBench.json", rows)
    return folder


def matching_folder(folder: Path) -> Path:
    config = load_config(ReadConfig, None, ["split=test", "noun=lamp"])
    read_entities(write_deepmatcher(folder.with_name("deepmatcher"), "test"), config, 0, folder)
    return folder


def pope_folder(source: str) -> Callable[[Path], Path]:
    return lambda folder: write_lists(folder, source=source)


FOLDERS: Mapping[str, Callable[[Path], Path]] = {
    **{name: lab_folder for name in BENCHMARKS if name.startswith(("lab-", "shared-media"))},
    "pope": pope_folder("coco"),
    "pope-aokvqa": pope_folder("aokvqa"),
    "pope-gqa": pope_folder("gqa"),
    **dict.fromkeys(("amber", "amber-generative", "amber-discriminative"), amber_folder),
    **dict.fromkeys(("chair", "object-halbench"), captions_folder),
    **dict.fromkeys(("scienceqa", "scienceqa-img"), scienceqa_folder),
    **dict.fromkeys(("hallusionbench", "hallusionbench-words"), hallusion_folder),
    **dict.fromkeys(("mmhal", "mmhal-v"), mmhal_folder),
    "llava-bench": llava_folder,
    "llava-bench-coco": coco_folder,
    "mm-vet": mmvet_folder,
    "mme": mme_folder,
    "gqa": gqa_folder,
    "textvqa": textvqa_folder,
    "matching": matching_folder,
}


def opened(name: str, folder: Path) -> Benchmark:
    """The benchmark over few samples; a judged one with replies to every answer."""
    benchmark = get_benchmark(name, BenchmarkOptions(folder, limit=None if name == "matching" else 3))
    if not isinstance(benchmark, JudgedBenchmark) or name not in REPLIES:
        return benchmark
    cycle = REPLIES[name]
    replies = {
        (sample.id, hash_text(answer.text)): (cycle[number % len(cycle)],)
        for number, (sample, answer) in enumerate(answered(benchmark))
    }
    return benchmark.with_verdicts(Verdicts(given=True, judge="judge", replies=replies))


def answered(benchmark: Benchmark) -> list[tuple[Sample, Answer]]:
    return [
        (sample, Answer(sample_id=sample.id, cluster=sample.cluster, text=text, tokens=len(text), finished=True))
        for sample in benchmark.samples()
        for text in (*TEXTS, *((sample.reference,) if sample.reference else ()))
    ]


def scores_of(benchmark: Benchmark, rows: Sequence[tuple[Sample, Answer]]) -> list[Score]:
    return [score_answer(benchmark, sample, answer) for sample, answer in rows]


def test_every_benchmark_of_the_registry_has_a_folder() -> None:
    assert set(FOLDERS) == set(BENCHMARKS)


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_a_score_is_a_pure_function(name: str, tmp_path: Path) -> None:
    """Twice, backwards, by another instance and by itself alone an answer has the same score; nothing is changed."""
    folder = FOLDERS[name](tmp_path / "data")
    benchmark = opened(name, folder)
    rows = answered(benchmark)
    before = [(sample.model_dump_json(), answer.model_dump_json()) for sample, answer in rows]
    first = scores_of(benchmark, rows)
    own = [benchmark.score(sample, answer).values for sample, answer in rows]
    assert len({str(values) for values in own}) > 1, "the answers do not tell scores apart"
    assert any(value is not None for values in own for value in values.values())

    assert scores_of(benchmark, rows) == first
    assert scores_of(benchmark, rows[::-1]) == first[::-1]
    fresh = opened(name, folder)
    assert answered(fresh) == rows, "the samples are the same each time"
    assert scores_of(fresh, rows[1::2]) == first[1::2]
    assert score_answer(opened(name, folder), *rows[-1]) == first[-1]
    assert [(sample.model_dump_json(), answer.model_dump_json()) for sample, answer in rows] == before
    kept = [score.model_dump_json() for score in first]
    scores_of(benchmark, rows[::2])
    assert [score.model_dump_json() for score in first] == kept, "a later call changes an earlier score"
