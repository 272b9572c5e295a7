"""A built wheel as a user has it: in an empty environment, nothing written to its folder.

python tests/wheel.py dist
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 20_000_000  # bytes of the wheel
DRAWINGS = """
import simprompt
from pathlib import Path
data = simprompt.load_dataset("icons/places")
split = data.base.few_shot(8, seed=1)
for row, label in enumerate(split.labels):
    place = Path("images") / split.classnames[label]
    place.mkdir(parents=True, exist_ok=True)
    split.load(row).save(place / f"{row}.png")
Path("new.txt").write_text("lighthouse\\nwindmill\\n", encoding="utf-8")
"""


def digests(place: Path) -> dict[str, str]:
    """What lies below a folder."""
    return {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dist", type=Path)
    parser.add_argument("--no-demo", action="store_true", help="leave the demo's minutes out")
    given = parser.parse_args()
    (wheel,) = given.dist.resolve().glob("*.whl")
    (source,) = given.dist.resolve().glob("*.tar.gz")
    sizes = {file.name: file.stat().st_size for file in (wheel, source)}
    print(", ".join(f"{name}: {size / 1e6:.1f} MB" for name, size in sizes.items()))
    if sizes[wheel.name] > LARGEST:
        raise SystemExit(f"The wheel has more than {LARGEST / 1e6:.0f} MB.")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "env", with_pip=True)
        python = place / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        hashed = [*install, "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r"]
        lists = ROOT / "requirements"
        subprocess.run([*hashed, str(lists / "run.txt")], check=True)
        if not subprocess.run(
            [str(python), str(lists / "asks_for_cuda.py")], check=False
        ).returncode:
            subprocess.run([*hashed, str(lists / "cuda.txt")], check=True)
        subprocess.run([*install, "--no-deps", str(wheel)], check=True)
        (place / "work").mkdir()
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {
            "SIMPROMPT_CACHE": str(place / "cache"), "HF_HOME": str(place / "hf"),
            "PYTHONDONTWRITEBYTECODE": "1", "MPLCONFIGDIR": folder,
        }  # fmt: skip

        def run(*arguments: str) -> str:
            ended = subprocess.run(
                [str(python), *arguments], cwd=place / "work", env=environment, encoding="utf-8",
                stdout=subprocess.PIPE, check=False,
            )  # fmt: skip
            if ended.returncode:
                raise SystemExit(f"{arguments} ended with {ended.returncode}")
            return ended.stdout

        where = run("-c", "import simprompt; print(simprompt.__file__)").strip()
        package = Path(where).parent
        assert package.is_relative_to(place), where
        before = digests(package)
        run("-m", "simprompt", "doctor")
        environment["HF_HUB_OFFLINE"] = "1"
        run("-c", DRAWINGS)
        run("-m", "simprompt", "learn", "images", "--new-classes", "new.txt", "--out", "learned",
            "--set", "training.max_steps=40")  # fmt: skip
        answers = json.loads(
            run("-m", "simprompt", "predict", "learned/prompt", "images", "--json")
        )
        print(f"learn and predict: {len(answers)} images, {answers[0]}")
        if not given.no_demo:
            document = json.loads(run("-m", "simprompt", "demo", "--json"))
            print(f"demo: {document['methods']}")
        if digests(package) != before:
            raise SystemExit("The package's own folder was written to.")
    print("The wheel works, and nothing was written to its folder.")


if __name__ == "__main__":
    sys.exit(main())
