"""The real browser that pages are opened in: None where there is none, and such tests are skipped."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
HEADLESS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]
#: For a page that is loaded, dumped or printed and left: its timers run at once.
FLAGS = [*HEADLESS, "--virtual-time-budget=4000"]
