"""The machine's own Chromium, driven by Playwright, and the checks of axe-core."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
RULES_OFF = ("region",)  # the link to the content stands before all landmarks, as such links do


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # A container has no user namespaces for Chromium's sandbox; the pages are our own.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def axe_violations(page: Any) -> list[str]:
    """What axe-core objects to, with the first element of each kind; skips the test where it is not installed."""
    import pytest

    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core is not installed: pip install axe-playwright-python")
    # Evaluated by the driver, not inserted as a script: the page's own policy would forbid that.
    page.evaluate((Path(found.origin).parent / "axe.min.js").read_text(encoding="utf-8"))
    rules = {name: {"enabled": False} for name in RULES_OFF}
    answer = page.evaluate("(rules) => axe.run(document, { rules, resultTypes: ['violations'] })", rules)
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in answer["violations"]]
