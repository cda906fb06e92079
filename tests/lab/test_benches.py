"""The lab's benchmarks: scores worked by hand on a scene made by hand, and how their questions are chosen."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from sightline.data.images import open_image
from sightline.evals.benchmark import Benchmark, BenchmarkOptions, Metric
from sightline.evals.registry import BENCHMARKS, get_benchmark
from sightline.evals.scoring import score_all
from sightline.evals.statistics import estimate
from sightline.lab.benches import LabPope, LabVQA, co_occurrence, lab_benchmark
from sightline.lab.chair import DESCRIBE, LabChair, Scenes
from sightline.lab.words import KINDS, WorldConfig
from sightline.lab.world import Scene, SceneObject, sample_scene
from sightline.records import Answer, Sample, Score

WORLD = WorldConfig()
COUNT = 150  # scenes whose questions are looked at
POPE = ("random", "popular", "adversarial")


def thing(kind: str, color: str, x: int, y: int) -> SceneObject:
    """An object of 20 x 20 pixels around (x, y)."""
    return SceneObject(kind, color, "small", (x - 10, y - 10, x + 10, y + 10), 0)


#: Two red cups (the first at the top left), a blue plate in the middle, a green tree at the right, lower third.
SCENE = Scene(
    "test",
    0,
    "kitchen",
    (
        thing("cup", "red", 16, 16),
        thing("plate", "blue", 48, 48),
        thing("cup", "red", 80, 16),
        thing("tree", "green", 80, 80),
    ),
    0,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all benchmarks of this file, so that each picture is drawn once."""
    return tmp_path_factory.mktemp("pictures")


def bench(name: str, folder: Path, count: int = COUNT, *, validation: bool = False) -> Benchmark:
    return lab_benchmark(name, BenchmarkOptions(folder, limit=count, validation=validation))


def scenes_of(split: str = "test") -> Scenes:
    return Scenes(WORLD, split, 1, Path("nowhere"))


def question(task: str, about: str = "") -> Sample:
    """A sample about `SCENE`, as the benchmarks make them."""
    return scenes_of().sample(SCENE, "images/none.png", task, "?", about)


def answer(text: str) -> Answer:
    return Answer(sample_id="test-000000", cluster="test-000000", text=text, tokens=1, finished=True)


def values(score: Score) -> dict[str, float]:
    """The non-zero values."""
    return {name: value for name, value in score.values.items() if value}


def named(scores: list[Score]) -> list[Score]:
    """Each score as a picture of its own."""
    return [s.model_copy(update={"sample_id": str(n), "cluster": str(n)}) for n, s in enumerate(scores)]


# --- lab-POPE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "about", "outcome"),
    [
        ("Yes, there is a red mug.", "cup", {"true_positive": 1.0}),
        ("Yes.", "spoon", {"false_positive": 1.0}),
        ("No, there is no spoon.", "spoon", {"true_negative": 1.0}),
        ("I do not see a cup.", "cup", {"false_negative": 1.0}),
        ("", "cup", {"true_positive": 1.0, "empty": 1.0, "touched": 1.0}),  # nothing is a yes, by the official rule
        ("", "spoon", {"false_positive": 1.0, "empty": 1.0, "touched": 1.0}),
        ("Nothing but a cup.", "cup", {"true_positive": 1.0, "touched": 1.0}),  # no word of it is "no"
    ],
)
def test_a_yes_no_answer_is_scored_against_the_scene(text: str, about: str, outcome: dict[str, float]) -> None:
    pope = LabPope("lab-pope-random", scenes_of(), "random")
    assert values(pope.score(question("yes-no", about), answer(text))) == outcome


def test_pope_numbers_by_hand() -> None:
    """tp 2 (cup, tree), fn 1 (plate), fp 2 (spoon, boat), tn 1 (pan): F1 = 2*2 / (2*2 + 2 + 1)."""
    pope = LabPope("lab-pope-random", scenes_of(), "random")
    answers = {"cup": "Yes.", "tree": "Yes.", "plate": "No.", "spoon": "Yes.", "boat": "Yes.", "pan": "No."}
    scores = named([pope.score(question("yes-no", kind), answer(text)) for kind, text in answers.items()])
    numbers = {name: e.value for name, e in estimate(scores, pope.metrics, resamples=100).items()}
    assert numbers == pytest.approx(
        {"accuracy": 3 / 6, "precision": 2 / 4, "recall": 2 / 3, "f1": 4 / 7, "yes_ratio": 4 / 6, "empty": 0.0}
    )


@pytest.mark.parametrize("variant", POPE)
def test_as_many_present_as_absent_kinds_are_asked_for(variant: str, folder: Path) -> None:
    pope = bench(f"lab-pope-{variant}", folder)
    questions: dict[str, list[Sample]] = {}
    for sample in pope.samples():
        questions.setdefault(sample.cluster, []).append(sample)
    assert len(questions) == COUNT
    for number, rows in enumerate(questions.values()):
        scene = sample_scene(WORLD, "test", number)
        about = [row.truth["about"] for row in rows]
        present = [kind for kind in about if kind in scene.kinds]
        assert len(set(about)) == len(about) == 2 * len(present)
        assert len(present) == min(3, len(scene.kinds))
        assert all(Scene.from_truth({k: v for k, v in row.truth.items() if k != "about"}) == scene for row in rows)
    ids = [row.id for rows in questions.values() for row in rows]
    assert len(set(ids)) == len(ids)


def test_the_variants_ask_for_the_same_present_kinds_in_the_same_words(folder: Path) -> None:
    def present(variant: str) -> list[str]:
        rows = bench(f"lab-pope-{variant}", folder, 40).samples()
        return [row.prompt for row in rows if row.truth["about"] in Scene.from_truth(_scene(row)).kinds]

    assert present("random") == present("popular") == present("adversarial")
    assert "Is there an umbrella in the image?" in present("random")
    assert all(prompt.startswith(("Is there a ", "Is there an ")) for prompt in present("random"))


def _scene(row: Sample) -> dict[str, object]:
    return {key: value for key, value in row.truth.items() if key != "about"}


@pytest.fixture(scope="module")
def together() -> tuple[Counter[str], dict[str, Counter[str]]]:
    """Counts of kinds, alone and together, in training scenes that the benchmark does not count."""
    single: Counter[str] = Counter()
    pairs: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for index in range(5000, 7000):
        kinds = sample_scene(WORLD, "train", index).kinds
        single.update(kinds)
        for kind in kinds:
            pairs[kind].update(kinds - {kind})
    return single, pairs


def test_adversarial_kinds_go_with_the_scene_popular_ones_with_any(
    folder: Path, together: tuple[Counter[str], dict[str, Counter[str]]]
) -> None:
    single, pairs = together
    company: dict[str, float] = {}
    frequency: dict[str, float] = {}
    for variant in POPE:
        with_scene, alone = [], []
        for row in bench(f"lab-pope-{variant}", folder).samples():
            kind, scene = row.truth["about"], Scene.from_truth(_scene(row))
            if kind not in scene.kinds:
                with_scene.append(sum(pairs[other][kind] for other in scene.kinds))
                alone.append(single[kind])
        company[variant], frequency[variant] = float(np.mean(with_scene)), float(np.mean(alone))
    # Themes have a long tail, so popular kinds go with most scenes, if not as well as the scene's own.
    assert company["adversarial"] > 2 * company["popular"] and company["popular"] > company["random"]
    assert frequency["popular"] > 1.2 * frequency["adversarial"] > 1.2 * frequency["random"]


def test_popular_and_adversarial_follow_the_official_rules() -> None:
    """Popular: the most frequent kinds that are absent. Adversarial: those that occur most with what is there."""
    single, pairs = co_occurrence(WORLD)
    absent = [kind for kind in KINDS if kind not in SCENE.kinds]
    rng = np.random.default_rng(0)
    popular = LabPope("p", scenes_of(), "popular")._absent(rng, SCENE, 3)
    assert min(single[kind] for kind in popular) >= max(single[k] for k in absent if k not in popular)
    adversarial = LabPope("a", scenes_of(), "adversarial")._absent(rng, SCENE, 3)
    score = {kind: pairs["cup"][kind] + pairs["plate"][kind] + pairs["tree"][kind] for kind in absent}
    assert min(score[kind] for kind in adversarial) >= max(score[k] for k in absent if k not in adversarial)
    assert set(adversarial) <= {"pan", "kettle", "spoon", "bench", "flower", "butterfly", "mushroom"}


def test_what_occurs_together_is_counted_both_ways() -> None:
    single, pairs = co_occurrence(WORLD, scenes=300)
    kinds = [sample_scene(WORLD, "train", index).kinds for index in range(300)]
    assert single["cup"] == sum("cup" in scene for scene in kinds)
    for one, other in (("cup", "plate"), ("cup", "cow")):
        assert pairs[one][other] == pairs[other][one] == sum({one, other} <= scene for scene in kinds)
    assert all(pairs[kind][kind] == 0 for kind in KINDS)


# --- lab-CHAIR --------------------------------------------------------------------------------------------------------

DESCRIPTION = "A red mug and two red cups stand on a table. There is no spoon, but there is a yellow pan and a boat."


def chair() -> LabChair:
    return LabChair("lab-chair", scenes_of())


def test_a_description_by_hand() -> None:
    """Asserted: mug, cups, pan, boat; of these pan (of the theme) and boat are absent; the spoon is denied.

    By chance an absent kind is of the kitchen with 3 (pan, kettle, spoon) of 37, twice.
    """
    score = chair().score(question("description"), answer(DESCRIPTION))
    assert score.values == pytest.approx(
        {
            "hallucinates": 1.0,
            "mentions": 4.0,
            "absent_mentions": 2.0,
            "absent_of_theme": 1.0,
            "absent_of_theme_by_chance": 2 * 3 / 37,
            "found": 1.0,
            "present": 3.0,
            "colors": 2.0,
            "wrong_colors": 0.0,
        }
    )
    assert [DESCRIPTION[start:end] for start, end in score.details["hallucinated"]] == ["yellow pan", "boat"]
    assert score.details["absent"] == ["boat", "pan"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"present": 3.0}),
        ("Nothing stands out.", {"present": 3.0}),
        ("There are two mugs, a plate and a tree.", {"mentions": 3.0, "found": 3.0, "present": 3.0}),
        ("There is no cup and no plate.", {"present": 3.0}),  # denied, though they are there: neither found nor wrong
        ("A blue cup.", {"mentions": 1.0, "found": 1.0, "present": 3.0, "colors": 1.0, "wrong_colors": 1.0}),
        ("Cups. More cups. Cups.", {"mentions": 3.0, "found": 1.0, "present": 3.0}),
    ],
)
def test_other_descriptions(text: str, expected: dict[str, float]) -> None:
    assert values(chair().score(question("description"), answer(text))) == expected


def test_chair_numbers_by_hand() -> None:
    """`DESCRIPTION`, a true description of all, and nothing: 1 of 3 hallucinates, 2 of 7 mentions, 4 of 9 found."""
    texts = (DESCRIPTION, "There are two mugs, a plate and a tree.", "")
    scores = named([chair().score(question("description"), answer(text)) for text in texts])
    numbers = {name: e.value for name, e in estimate(scores, chair().metrics, resamples=100).items()}
    assert numbers == pytest.approx(
        {
            "chair_s": 1 / 3,
            "chair_i": 2 / 7,
            "recall": 4 / 9,
            "wrong_color": 0.0,
            "theme_share": 1 / 2,
            "theme_chance": 3 / 37,
        }
    )


def test_every_scene_is_described_once_with_one_prompt(folder: Path) -> None:
    rows = list(bench("lab-chair", folder, 20).samples())
    assert [row.cluster for row in rows] == [f"test-{number:06d}" for number in range(20)]
    assert {(row.prompt, row.task) for row in rows} == {(DESCRIBE, "description")}
    for row in rows:
        assert open_image(folder / row.images[0], row.id).size == (96, 96)


# --- lab-VQA ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "about", "text", "correct"),
    [
        ("count", "cup", "Two.", True),
        ("count", "cup", "There are 2 cups.", True),
        ("count", "cup", "Three.", False),
        ("count", "cup", "Two or three.", False),  # naming everything is no way to be right
        ("count", "cup", "", False),
        ("count", "plate", "There is one plate.", True),
        ("count", "plate", "None.", False),
        ("color", "cup", "Red.", True),
        ("color", "cup", "The mugs are red.", True),
        ("color", "cup", "Red and blue.", False),
        ("color", "cup", "Reddish.", False),
        ("color", "cup", "", False),
        ("color", "plate", "BLUE", True),
        ("position", "plate", "In the middle.", True),
        ("position", "plate", "In the center of the image.", True),
        ("position", "plate", "On the left.", False),
        ("position", "plate", "", False),
        ("position", "tree", "At the bottom right.", True),
        ("position", "tree", "In the bottom right corner.", True),
        ("position", "tree", "On the right.", False),  # the height that is not named is the middle
        ("position", "tree", "At the top right.", False),
        ("position", "tree", "At the left and right bottom.", False),
        ("position", "cup", "At the top left.", True),  # of several, the first
    ],
)
def test_an_answer_is_right_or_wrong(task: str, about: str, text: str, correct: bool) -> None:
    score = LabVQA("lab-vqa", scenes_of()).score(question(task, about), answer(text))
    others = {"count": None, "color": None, "position": None}
    assert score.values == {**others, task: float(correct), "correct": float(correct)}


def test_the_truth_is_kept_for_people() -> None:
    vqa = LabVQA("lab-vqa", scenes_of())
    truths = {("count", "cup"): "two", ("color", "tree"): "green", ("position", "tree"): "bottom right"}
    for (task, about), truth in truths.items():
        assert vqa.score(question(task, about), answer("?")).details == {"truth": truth}


def test_vqa_numbers_leave_other_tasks_out() -> None:
    vqa = LabVQA("lab-vqa", scenes_of())
    answers = [
        ("count", "cup", "Two."),
        ("count", "plate", "Two."),
        ("color", "cup", "Red."),
        ("color", "tree", "Red."),
    ]
    scores = named([vqa.score(question(task, about), answer(text)) for task, about, text in answers])
    estimates = estimate(scores, vqa.metrics)
    assert {name: (e.value, e.n, e.unscored) for name, e in estimates.items()} == {
        "accuracy": (0.5, 4, 0),
        "count": (0.5, 2, 0),
        "color": (0.5, 2, 0),
        "position": (None, 0, 0),
    }


def test_a_vqa_question_without_an_answer_is_unscored_for_its_own_task_alone() -> None:
    vqa = LabVQA("lab-vqa", scenes_of())
    answered = [
        (question("count", "cup"), answer("Two.")),
        (question("color", "cup"), None),
        (question("color", "tree"), answer("Red.")),
    ]
    estimates = estimate(named(list(score_all(vqa, answered))), vqa.metrics)
    assert {name: (estimates[name].value, estimates[name].n, estimates[name].unscored) for name in vqa.metrics} == {
        "accuracy": (0.5, 2, 1),
        "count": (1.0, 1, 0),
        "color": (0.0, 1, 1),
        "position": (None, 0, 0),
    }


def test_questions_are_about_what_is_there(folder: Path) -> None:
    tasks: Counter[str] = Counter()
    for row in bench("lab-vqa", folder).samples():
        scene = Scene.from_truth(_scene(row))
        assert row.truth["about"] in scene.kinds
        if row.task == "position":
            assert scene.count(row.truth["about"]) == 1
        tasks[row.task] += 1
    assert tasks["count"] == tasks["color"] == COUNT and 0.5 * COUNT < tasks["position"] <= COUNT


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name.startswith("lab-")])
def test_samples_are_the_same_every_time_and_other_on_other_splits(name: str, folder: Path, tmp_path: Path) -> None:
    benchmark = get_benchmark(name, BenchmarkOptions(folder, limit=6))
    rows = list(benchmark.samples())
    assert benchmark.name == name and benchmark.folder == folder
    assert rows == list(get_benchmark(name, BenchmarkOptions(tmp_path, limit=6)).samples())
    assert all((folder / row.images[0]).read_bytes() == (tmp_path / row.images[0]).read_bytes() for row in rows)
    fewer = list(get_benchmark(name, BenchmarkOptions(folder, limit=3)).samples())
    assert rows[: len(fewer)] == fewer and len(fewer) < len(rows)
    split = "counter-test" if name.endswith("-counter") else "test"
    assert {row.cluster.rpartition("-")[0] for row in rows} == {split}
    others = list(get_benchmark(name, BenchmarkOptions(folder, limit=6, validation=True)).samples())
    assert {row.cluster.rpartition("-")[0] for row in others} == {split.replace("test", "validation")}
    assert {row.id for row in others}.isdisjoint({row.id for row in rows})
    assert [row.truth for row in others] != [row.truth for row in rows]


def test_metrics_find_their_values_in_the_scores() -> None:
    for name, task, about in (
        ("lab-chair", "description", ""),
        ("lab-vqa", "count", "cup"),
        ("lab-pope-random", "yes-no", "cup"),
    ):
        benchmark = lab_benchmark(name, BenchmarkOptions(Path("nowhere"), limit=1))
        score = benchmark.score(question(task, about), answer("Two."))
        assert all(
            isinstance(metric, Metric) and (metric.terms(score.values, name) is not None or task == "count")
            for metric in benchmark.metrics.values()
        )
        assert sum(metric.primary for metric in benchmark.metrics.values()) == 1
