"""What page.js says and asks, run by node on a page of stand-in elements; the real browser is in
test_page_in_browser.py."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import simprompt

PAGE = Path(simprompt.__file__).parent / "deploy" / "page"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(not NODE, reason="no node")

HARNESS = """
const fs = require("fs"), vm = require("vm");
const input = JSON.parse(fs.readFileSync(0, "utf8"));
class Element {
  constructor() { this.children = []; this.listeners = {}; this.style = { setProperty() {} };
    this.classList = { add() {}, remove() {} };
    this.textContent = this.value = ""; this.checked = false; }
  append(...more) { this.children.push(...more); }
  replaceChildren(...more) { this.children = more; }
  addEventListener(kind, work) { this.listeners[kind] = work; }
  setAttribute() {} focus() {}
  get text() { return [this.textContent, ...this.children.map((c) => c.text)].join("|"); }
}
const elements = {};
for (const id of input.ids) elements[id] = new Element();
for (const id of input.checked) elements[id].checked = true;
const paths = [];
const context = {
  document: { getElementById: (id) => elements[id] || null, createElement: () => new Element(),
    querySelector: () => new Element(), addEventListener() {} },
  URL: { createObjectURL: () => "", revokeObjectURL() {} }, FormData: class { append() {} },
  performance, setTimeout, clearTimeout, console,
  fetch: async (path) => {
    paths.push(path);
    return { ok: true, json: async () => input.answers[path] };
  },
};
vm.createContext(context);
vm.runInContext(input.script, context);
const wait = () => new Promise((done) => setTimeout(done, 20));
(async () => {
  await wait();
  vm.runInContext('add([{ name: "a.png" }])', context);
  await wait();
  const seen = { own: elements.results.text, limits: elements["unknown-value"].textContent };
  elements.unknown.value = "95";
  elements.unknown.listeners.input();
  console.log(JSON.stringify({ ...seen, one: elements.results.text, paths }));
})();
"""


def run(prompts: dict[str, float], probability: float, certainty: float | None = -1.0) -> dict:
    """What the page shows of an image that each prompt takes for a cat with this probability.

    Args:
        certainty: what thresholds are compared with; -1: the probability.
    """
    certainty = probability if certainty == -1.0 else certainty
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    choices = [{"name": "cat", "probability": probability}]
    answers = [{"prompt": name, "choices": choices, "certainty": certainty} for name in prompts]
    image = {"image": "a.png", "error": None, "answers": answers}
    answer = {"names": ["cat"], "matrices": {}, "images": [image]}
    about = [{"name": name, "model": "m", "unknown": limit} for name, limit in prompts.items()]
    info = {"version": "1", "names": ["cat"], "limits": {}, "prompts": about}
    served = {"predict": answer, "similarities": answer, "info": info}
    script = (PAGE / "page.js").read_text(encoding="utf-8")
    given = {
        "ids": re.findall(r'id="([\w-]+)"', html),
        "checked": re.findall(r'id="([\w-]+)" type="checkbox" checked', html),
        "script": script, "answers": served | {f"/{path}": a for path, a in served.items()},
    }  # fmt: skip
    assert NODE
    done = subprocess.run(
        [NODE, "-e", HARNESS], input=json.dumps(given), capture_output=True, encoding="utf-8",
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(shown: str) -> list[bool]:
    """Prompt by prompt, whether its answer is none of these."""
    return ["none of these" in part for part in shown.split("caption-")[1:]]


@pytest.mark.parametrize("last", [0.0, 0.3, 0.9])
def test_each_prompt_is_judged_by_its_own_threshold(last: float):
    shown = run({"caption-zero-shot": 0.0, "caption-a": 0.6, "caption-b": last}, 0.5)
    assert refused(shown["own"]) == [False, True, last > 0.5]
    assert "caption-a 60.0 %" in shown["limits"]
    assert refused(shown["one"]) == [True, True, True]  # the slider at 95 % is for all


def test_a_threshold_is_compared_with_the_certainty():
    """A single name has the probability 1, whatever the image shows."""
    prompts = {"caption-a": 0.6, "caption-b": 0.9}
    assert refused(run(prompts, 1.0, 0.7)["own"]) == [False, True]
    assert refused(run(prompts, 0.1, None)["own"]) == [False, False]


def test_the_page_works_below_a_path_of_a_proxy():
    assert {path[0] == "/" for path in run({"a": 0.5}, 0.5)["paths"]} == {False}
    for page in ("index.html", "docs.html"):
        text = (PAGE / page).read_text(encoding="utf-8")
        assert not re.findall(r'(?:href|src)="/', text)
