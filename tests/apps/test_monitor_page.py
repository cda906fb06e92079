"""The monitor's page in a real browser: nothing runs or is loaded, nothing sticks out. Skipped without Chromium."""

from pathlib import Path

import pytest

from tests.apps.browser import browser
from tests.apps.test_monitor import drifted, row, usual, watch, write_log
from tests.chromium import CHROMIUM

HOSTILE = "<img src=x onerror=alert(1)><script>document.title='owned'</script>"


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_page_of_a_drift(tmp_path: Path) -> None:
    """On a desk and a phone, light and dark, with hostile prompts and answers among the evidence."""
    hostile = [row(n, HOSTILE, HOSTILE, salt="hostile", brightness=0.1) for n in range(200)]
    baseline = write_log(tmp_path / "baseline", usual(400, 1, "base"))
    log = write_log(tmp_path / "log", [*hostile, *drifted(200, 3)])
    assert watch(log, baseline, tmp_path / "out").exit_code == 1
    address = (tmp_path / "out/monitor.html").as_uri()
    with browser(tmp_path / "profile") as tab:
        for width, dark in ((1280, False), (390, True), (320, False)):
            tab.resize(width, 900, dark=dark)
            tab.open(address)
            tab.wait("document.readyState === 'complete' && document.querySelectorAll('tr').length > 5")
            assert tab.run("document.documentElement.scrollWidth") <= width
            tab.picture(tmp_path / f"{width}.png")
        assert HOSTILE in tab.run("document.body.textContent")
        assert tab.run("document.title") != "owned"
        assert tab.run("document.querySelectorAll('script, [onerror], img:not([alt])').length") == 0
        assert tab.errors == []
        assert set(tab.requested) == {address}
