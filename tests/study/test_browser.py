"""The page in a real browser: nothing runs, nothing sticks out on a desk or a phone. Needs Chromium; else skipped."""

import html
import json
import re
import subprocess
from pathlib import Path

import pytest

from sightline.report.page import write_report
from tests.chromium import CHROMIUM, FLAGS
from tests.study.directories import whole_run

#: Frames of several widths around the page, and their measures in the title.
FRAMES = """<!doctype html><body><script>
const page = %s;
const measured = {};
for (const width of [1280, 768, 390, 320]) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inner = frame.contentDocument;
    measured[width] = {
      wide: inner.documentElement.scrollWidth,
      tall: inner.documentElement.scrollHeight,
      scripts: inner.querySelectorAll("script, [onerror]").length,
      pictures: [...inner.images].filter(image => image.naturalWidth > 0).length,
      broken: [...inner.images].filter(image => image.complete && image.naturalWidth === 0).length,
    };
    document.title = JSON.stringify(measured);
  };
  document.body.append(frame);
}
window.alert = () => { measured.alerted = true; };
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    run = whole_run(tmp_path / "run", count=40)
    write_report(
        tmp_path / "report",
        base=run["base"],
        aligned=[run["aligned-0"]],
        trainings=[run["train-0"]],
        pairs=run["pairs"],
        resamples=200,
    )
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    frames = tmp_path / "frames.html"
    # Pictures are lazy, and those below a frame's edge would never come.
    frames.write_text(FRAMES % json.dumps(text.replace(' loading="lazy"', "")).replace("</", "<\\/"), encoding="utf-8")
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", frames.as_uri()],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None, done.stderr[-2000:]
    measured = json.loads(html.unescape(title.group(1)))
    assert set(measured) == {"1280", "768", "390", "320"}
    for width, sizes in measured.items():
        assert sizes["wide"] <= int(width), f"the page is {sizes['wide']} px wide in a window of {width} px"
        assert sizes["tall"] > 3000
        assert sizes["scripts"] == 0
        assert sizes["pictures"] > 20
        assert sizes["broken"] == 0
