"""The exact files that `make` installs, from `pyproject.toml`: `make requirements`, `make sbom`.

Each list names every package that pip may install on Linux, macOS and Windows with Python 3.10 to
3.14, one version each, with the SHA-256 of every file of it, so that pip takes those files or none.
Versions that are in the lists already stay; `make requirements UPGRADE=--upgrade` takes new ones.

Lists: `run` for using the package, `test` and `pretrain` with those extras, `tools` for what works
on these lists, and `cuda`, the libraries that torch's usual build for Linux needs and a CPU build
does not: the Makefile installs them where the torch that was installed asks for them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import tomllib

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent / "pyproject.toml"
LISTS = {"test": ["test"], "run": [], "pretrain": ["pretrain"]}  # the largest first
TOOLS = ["uv", "pip-audit"]
CUDA = re.compile(r"nvidia-|cuda-|triton==")
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
MACOS = "14.0"  # torch has no wheel for an older one
PLATFORMS = (
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "aarch64-apple-darwin",
    "x86_64-pc-windows-msvc",
)
HEAD = "# Made by `make requirements`; not to be changed by hand.\n"


def blocks(text: str) -> list[str]:
    """The requirements of a list, each with its marker and the lines of its hashes."""
    lines = re.findall(r"^[\w.\-]+==.*\n(?:    .*\n)*", text, re.MULTILINE)
    assert "".join(lines) == text.removeprefix(HEAD), "a line of another form"
    return lines


def listed(name: str) -> str:
    """A list as it is; empty where there is none yet."""
    path = HERE / f"{name}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def uv(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "uv", "pip", *map(str, arguments)]
    environment = {**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS}
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)


def compiled(wanted: list[str], known: str, upgrade: bool) -> str:
    """What satisfies the requirements everywhere; versions in `known` are kept."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "wanted.in", Path(folder) / "out.txt"
        source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        out.write_text(known, encoding="utf-8")
        done = uv(
            "compile", "--quiet", "--universal", "--python-version", PYTHONS[0],
            "--generate-hashes", "--no-header", "--no-annotate", *["--upgrade"] * upgrade,
            source, "-o", out,
        )  # fmt: skip
        if done.returncode:
            sys.exit(done.stderr)
        return out.read_text(encoding="utf-8")


def with_local_build(block: str, before: str) -> str:
    """A requirement with the hash of the file that pip takes here as well.

    torch's CPU builds stand in other indexes than its usual one, under the same version. Hashes
    that the list had for this version stay, whoever added them.
    """
    first = block.split("\n", 1)[0]
    old = next((b for b in blocks(before) if b.split("\n", 1)[0] == first), "")
    hashes = set(re.findall("sha256:([0-9a-f]{64})", block + old))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
         "--no-deps", "--only-binary", ":all:", "--report", "-", first.split()[0]],
        capture_output=True, encoding="utf-8",
    )  # fmt: skip
    if done.returncode:
        sys.exit(done.stderr)
    info = json.loads(done.stdout)["install"][0]["download_info"]
    if digest := info["archive_info"].get("hashes", {}).get("sha256"):
        hashes.add(digest)
    elif (url := urlsplit(info["url"])).scheme == "file":
        hashes.add(hashlib.sha256(Path(unquote(url.path)).read_bytes()).hexdigest())
    lines = [first, *(f"    --hash=sha256:{digest} \\" for digest in sorted(hashes))]
    return "\n".join(lines).removesuffix(" \\") + "\n"


def write(name: str, requirements: list[str]) -> None:
    path = HERE / f"{name}.txt"
    path.write_text(HEAD + "".join(requirements), encoding="utf-8")
    print(f"requirements/{path.name}: {len(requirements)} requirements")


def make(upgrade: bool) -> None:
    """Write all lists."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    always = project["build-system"]["requires"] + project["project"]["dependencies"]
    before = {name: listed(name) for name in [*LISTS, "tools", "cuda"]}
    known = before["test"] + before["cuda"]
    cuda: list[str] = []
    for name, groups in LISTS.items():
        wanted = [*always, *(r for group in groups for r in extras[group])]
        if name != "test":  # one version of a package in all lists
            upgrade_here, known_here = False, known + before[name]
        else:
            upgrade_here, known_here = upgrade, known
        made = blocks(compiled(wanted, known_here, upgrade_here))
        if name == "test":
            known = "".join(made)
            cuda = [block for block in made if CUDA.match(block)]
        made = [block for block in made if not CUDA.match(block)]
        write(name, [
            with_local_build(b, before["test"]) if b.startswith("torch==") else b for b in made
        ])  # fmt: skip
    write("cuda", cuda)
    write("tools", blocks(compiled(TOOLS, before["tools"], upgrade)))


def check() -> None:
    """Every list has a wheel of each of its packages, for every Python and platform."""
    for name in [*LISTS, "cuda", "tools"]:
        missing = []
        for python in PYTHONS:
            for platform in PLATFORMS:
                with tempfile.TemporaryDirectory() as folder:
                    done = uv(
                        "install", "--dry-run", "--no-deps", "--require-hashes",
                        "--only-binary", ":all:", "--python-version", python,
                        "--python-platform", platform, "--target", folder,
                        "-r", HERE / f"{name}.txt",
                    )  # fmt: skip
                if done.returncode:
                    missing.append(f"Python {python} on {platform}: {done.stderr.strip()}")
        print(f"requirements/{name}.txt: wheels of all, except for" if missing else
              f"requirements/{name}.txt: wheels of all")  # fmt: skip
        for line in missing:
            print(f"  {line}")


def sbom() -> dict[str, Any]:
    """What is in the lists `run` and `cuda`, as a bill of materials in CycloneDX's JSON."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    components: dict[str, dict[str, Any]] = {}
    for block in blocks(listed("run")) + blocks(listed("cuda")):
        requirement, _, marker = block.split("\n", 1)[0].removesuffix("\\").partition(";")
        name, version = requirement.strip().split("==")
        purl = f"pkg:pypi/{name}@{version}"
        component = {
            "type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl,
        }  # fmt: skip
        if marker.strip():
            component["properties"] = [{"name": "marker", "value": marker.strip()}]
        components[purl] = component
    own = f"pkg:pypi/{project['name']}@{project['version']}"
    content = json.dumps(sorted(components), sort_keys=True)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, own + content)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": own, "name": project["name"],
                "version": project["version"], "purl": own,
                "licenses": [{"expression": project["license"]}],
            },
        },
        "components": list(components.values()),
        "dependencies": [{"ref": own, "dependsOn": sorted(components)}],
    }  # fmt: skip


def main(arguments: list[str]) -> None:
    if arguments != ["--sbom"]:
        make("--upgrade" in arguments)
        check()
    text = json.dumps(sbom(), indent=1, ensure_ascii=False) + "\n"
    (HERE / "sbom.cdx.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
