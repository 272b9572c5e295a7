"""The page in a real browser: `pytest -m slow tests/deploy/test_page_in_browser.py`.

Needs `pip install playwright` and a Chromium (its path in CHROMIUM, or on the PATH). With AXE, the
path of axe-core's axe.min.js, accessibility is checked as well; with SCREENSHOTS, a folder, the
pictures of docs/serve.md are made again.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium; name one in CHROMIUM"),
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import simprompt
    from simprompt.clip.hub import load_clip

    folder = tmp_path_factory.mktemp("prompts")
    clip, data = load_clip("icons"), simprompt.load_dataset("icons/animals")
    shots = data.base.few_shot(16, seed=1)
    for name, sar in (("coop", False), ("coop+sar", True)):
        simprompt.learn(clip, shots, sar=sar, training={"max_steps": 100}).save(folder / name)
    rows = data.new.test.rows_by_label()
    for label in (0, 1, 2):
        image = data.new.test.load(rows[label][0])
        image.resize((192, 192)).save(folder / f"{data.new.classnames[label]}.png")
    (folder / "text.png").write_text("no image", encoding="utf-8")
    command = [sys.executable, "-m", "simprompt", "serve", str(folder / "coop"),
               str(folder / "coop+sar"), "--port", "0"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        at = process.stdout.readline().split()[0]
        yield f"{at} {folder}"
        process.terminate()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_answers(address: str, width: int, scheme: str):
    at, place = address.split(" ", 1)
    folder = Path(place)
    good = sorted(str(p) for p in folder.glob("*.png") if p.name != "text.png")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(at)
        names = page.locator("#names")
        sync_api.expect(names).not_to_have_value("")
        page.set_input_files("#files", good[:1])
        captions = page.locator("#results caption")
        sync_api.expect(captions).to_have_text(["zero-shot", "coop", "coop+sar"])

        # names that no prompt was taught change the answers
        new = [Path(path).stem for path in good]
        names.fill("\n".join([*new, "teapot"]))
        first = page.locator("#results article tbody tr.first td:first-child").first
        sync_api.expect(first).to_have_text(re.compile("|".join([*new, "teapot"])))
        sync_api.expect(page.locator("#map tbody tr")).to_have_count(len(new) + 1)
        page.set_input_files("#files", good[1:])
        sync_api.expect(page.locator("#results article")).to_have_count(len(good))

        # the unknown answer
        page.locator("#unknown").fill("95")
        page.locator("#names").fill("teapot\nanvil\nlamp\nspoon")
        sync_api.expect(page.locator("#results .first").first).to_be_visible()
        # the likeliest of four wrong names may be sure of itself, so the limit may hold none
        page.locator("#unknown").fill("0")

        # a text file that is called an image
        page.set_input_files("#files", str(folder / "text.png"))
        sync_api.expect(page.locator("#status")).to_contain_text("not an image")
        page.locator("#names").fill("\n".join([*new, "teapot"]))
        sync_api.expect(page.locator("#map tbody tr")).to_have_count(len(new) + 1)
        sync_api.expect(page.locator("#results .error")).to_have_count(1)
        sync_api.expect(page.locator("#status")).not_to_have_text("Looking ...")

        # nothing lies outside the width of the window, and every control can be reached by key
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        reached = set()
        page.locator("body").focus()
        for _ in range(14):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.id"))
        assert {"files", "camera", "names", "reset", "unknown", "which", "map"} <= reached
        if axe := os.environ.get("AXE"):
            found = page.evaluate(
                Path(axe).read_text(encoding="utf-8") + "; axe.run().then(r => r.violations)"
            )
            serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
            assert not serious, found
        if pictures := os.environ.get("SCREENSHOTS"):
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=f"{pictures}/serve-{width}-{scheme}.png", full_page=True)
        assert all(url.startswith((at, "blob:")) for url in asked)
        assert not errors
        browser.close()
