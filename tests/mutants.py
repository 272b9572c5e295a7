"""How much the tests of the numbers notice: small wrong changes of the code, one at a time.

    python tests/mutants.py [--module metrics] [--sample 50 --seed 1]

A mutant is a module with one change: `<` for `<=`, `+` for `-`, a number one higher, a statement or
a keyword argument left out, and so on (`changes_of` has them all). It is killed when one of the
tests that judge its module fails, or if they take five times the computing that they should; one
that survives is shown with its line. Docstrings, annotations and the words of errors are left as
they are.

Python, torch and all that does not use the module are imported once. Each mutant then lives in a
forked process, whose import of the module takes the changed code: no file is written, and what
other modules import from it is changed too. Hypothesis tries the same examples each time.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork has only the thread that forked

ROOT = Path(__file__).parents[1]


class Target(NamedTuple):
    """A module below `simprompt`, the tests that judge it, and which functions (all, if empty)."""

    module: str
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()


TARGETS = (
    Target("sar", ("test_sar.py", "test_streams.py")),
    Target("metrics", ("test_metrics.py",)),
    Target("utils.statistics", ("test_statistics.py", "test_metrics.py")),
    Target("experiments.run_key", ("test_identity_digests.py", "test_identity.py")),
    Target("features.digests", ("test_identity_digests.py", "test_identity.py")),
    Target("training.schedule", ("test_schedule.py",)),
    Target("utils.seeds", ("test_streams.py",)),
    Target("experiments.summary", ("test_summary.py", "report/test_differences.py")),
    Target("data.dataset", ("data/test_dataset.py",)),
    Target(
        "data.split_rules",
        ("data/test_published_rules.py", "data/test_coop.py"),
        ("_files", "_shares", "_fifth", "_by_folders"),
    ),
    Target("data.coop", ("data/test_published_rules.py", "data/test_coop.py"), ("_read_split",)),
    Target("data.own_images.duplicates", ("data/test_duplicates.py",), ("hold_out",)),
)

# ------------------------------------------------------------------------------- changes

COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
LEFT_OUT = (ast.Assign, ast.AugAssign, ast.Expr, ast.Raise)


class Change(NamedTuple):
    """What stands where in a tree, and what it becomes."""

    line: int
    words: str
    apply: Callable[[], None]


def changes_of(tree: ast.Module, functions: Sequence[str] = ()) -> list[Change]:
    """All changes of a module in the order of its lines; `apply` makes one, in place."""
    found: list[Change] = []
    for node in tree.body:
        if not functions or getattr(node, "name", None) in functions:
            found += _below(node, in_function=False)
            found += _left_out(tree.body, node, in_function=False)
    return sorted(found, key=lambda change: change.line)  # stable


def _below(node: ast.AST, in_function: bool) -> Iterator[Change]:
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom) or _says_nothing(node):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return
    yield from _of(node)
    in_function |= isinstance(node, ast.FunctionDef | ast.Lambda)
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns"):
            continue
        if isinstance(value, ast.AST):
            yield from _of_value(node, field, None, value)
            yield from _below(value, in_function)
        elif isinstance(value, list):
            for at, item in enumerate(value):
                if isinstance(item, ast.AST):
                    yield from _of_value(node, field, at, item)
                    yield from _below(item, in_function)
                if isinstance(item, ast.stmt):
                    yield from _left_out(value, item, in_function)


def _says_nothing(node: ast.AST) -> bool:
    """A docstring, or a text beside a constant."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _left_out(body: list[Any], node: ast.stmt, in_function: bool) -> Iterator[Change]:
    if _says_nothing(node) or not isinstance(node, LEFT_OUT) or not in_function:
        return

    def apply() -> None:
        body[body.index(node)] = ast.copy_location(ast.Pass(), node)

    yield Change(node.lineno, f"left out: {_shown(node)}", apply)


def _of(node: ast.AST) -> Iterator[Change]:
    """Changes of the node's own fields."""
    line = getattr(node, "lineno", 0)

    def to(field: str, value: Any, words: str) -> Change:
        return Change(line, words, lambda: setattr(node, field, value))

    if isinstance(node, ast.Compare):
        for at, op in enumerate(node.ops):
            for other in COMPARED[type(op)]:
                ops = [*node.ops[:at], other(), *node.ops[at + 1 :]]
                yield to("ops", ops, f"{_shown(node)}: {type(op).__name__} -> {other.__name__}")
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in COMPUTED:
        op = COMPUTED[type(node.op)]
        yield to("op", op(), f"{_shown(node)}: {type(node.op).__name__} -> {op.__name__}")
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield to("op", other_op, f"{_shown(node)}: and <-> or")
    elif isinstance(node, ast.If | ast.IfExp):
        for value in (True, False):
            yield to("test", ast.Constant(value), f"if {_shown(node.test)}: {value}")
    elif isinstance(node, ast.While):
        yield to("test", ast.Constant(False), f"while {_shown(node.test)}: False")
    elif isinstance(node, ast.comprehension):
        for at, test in enumerate(node.ifs):
            rest = [*node.ifs[:at], *node.ifs[at + 1 :]]
            yield Change(
                test.lineno,
                f"left out: if {_shown(test)}",
                lambda rest=rest: setattr(node, "ifs", rest),
            )
    elif isinstance(node, ast.Return) and node.value and ast.unparse(node.value) != "None":
        yield to("value", ast.Constant(None), f"{_shown(node)}: None")
    elif isinstance(node, ast.Call):
        for at, keyword in enumerate(node.keywords):
            rest_of = [*node.keywords[:at], *node.keywords[at + 1 :]]
            yield to("keywords", rest_of, f"{_shown(node)}: without {keyword.arg or '**'}")
    elif isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bool):
            yield to("value", not value, f"{value} -> {not value}")
        elif isinstance(value, int | float):
            yield to("value", value + 1, f"{value} -> {value + 1}")
        elif isinstance(value, str):
            yield to("value", f"{value}X", f"{value!r} -> {value + 'X'!r}")


def _of_value(parent: ast.AST, field: str, at: int | None, value: ast.AST) -> Iterator[Change]:
    """Changes that put another node in place of one."""

    def put(new: ast.AST) -> None:
        ast.copy_location(new, value)
        if at is None:
            setattr(parent, field, new)
        else:
            getattr(parent, field)[at] = new

    if isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not | ast.USub):
        inside = value.operand
        yield Change(value.lineno, f"{_shown(value)}: {_shown(inside)}", lambda: put(inside))
    elif isinstance(value, ast.Break):
        yield Change(value.lineno, "break -> continue", lambda: put(ast.Continue()))
    elif isinstance(value, ast.Continue):
        yield Change(value.lineno, "continue -> break", lambda: put(ast.Break()))


def _shown(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


# ------------------------------------------------------------------------------- processes


TIMERS = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}


class BlockedError(Exception):
    """A module uses the one that is going to be changed."""


class Importer:
    """Finds the target's module before others do: blocked, or with other code."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        self.code: CodeType | None = None

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != self.name:
            return None
        if self.code is None:
            raise BlockedError(name)
        loader = CodeLoader(name, str(self.path))
        loader.code = self.code
        return importlib.util.spec_from_file_location(name, self.path, loader=loader)


class CodeLoader(SourceFileLoader):
    code: CodeType

    def get_code(self, fullname: str) -> CodeType:
        return self.code


def in_child(work: Callable[[], Any], computing: float, waiting: float) -> tuple[Any, int]:
    """(What `work` returns in a forked process, the signal that ended it or 0).

    Args:
        computing: seconds of CPU it may take; how busy the machine is does not count.
        waiting: seconds on the clock it may take, which ends one that waits for ever.
    """
    folder = Path(tempfile.mkdtemp(prefix="mutants-"))
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            for number in TIMERS.values():
                signal.signal(number, signal.SIG_DFL)  # ends it also inside native code
            signal.setitimer(signal.ITIMER_PROF, computing)
            signal.setitimer(signal.ITIMER_REAL, waiting)
            os.environ["MUTANT_FOLDER"] = str(folder)
            value = json.dumps(work())
            (folder / "value").write_text(value, encoding="utf-8")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    value = json.loads((folder / "value").read_text(encoding="utf-8")) if status == 0 else None
    shutil.rmtree(folder, ignore_errors=True)
    return value, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def judge(tests: Sequence[str]) -> int:
    """pytest's exit code, in this process and in silence."""
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    settings.register_profile(
        "mutants", derandomize=True, database=None, deadline=None,
        phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    settings.load_profile("mutants")
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    where = Path(os.environ["MUTANT_FOLDER"]) / "pytest"
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--basetemp={where}"]
    return int(pytest.main([*options, *(str(ROOT / "tests" / test) for test in tests)]))


def unchanged(tests: Sequence[str]) -> dict[str, Any]:
    """How the module itself is judged, in what time, and what was imported for it."""
    began = time.process_time()
    code = judge(tests)
    seconds = time.process_time() - began
    names = []
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None) or ""
        ours = origin.startswith(str(ROOT)) and "site-packages" not in origin
        if spec is not None and (not ours or name.startswith("simprompt")):
            names.append(name)
    return {"code": code, "seconds": seconds, "names": names}


def examine(target: Target, sample: int | None, seed: int) -> dict[str, Any]:
    """Judges the mutants of a target; the survivors are texts."""
    name = f"simprompt.{target.module}"
    path = ROOT / "src" / Path(*name.split(".")).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    before, _ = in_child(lambda: unchanged(target.tests), 600, 1200)
    if before is None or before["code"]:
        raise RuntimeError(f"{', '.join(target.tests)} fail with {path.name} as it is")
    importer = Importer(name, path)
    sys.meta_path.insert(0, importer)
    for other in before["names"]:
        try:
            importlib.import_module(other)
        except Exception:  # what cannot be imported here is imported by the tests
            continue
    count = len(changes_of(copy.deepcopy(tree), target.functions))
    chosen = list(range(count))
    if sample is not None and sample < count:
        chosen = sorted(random.Random(seed).sample(chosen, sample))
    made = changes_of(tree, target.functions)
    survivors, late = [], 0
    for number in chosen:

        def work(number: int = number) -> int:
            made[number].apply()
            importer.code = compile(ast.fix_missing_locations(tree), str(path), "exec")
            return judge(target.tests)

        computing = 2 + 5 * before["seconds"]
        code, ended_by = in_child(work, computing, 60 + 10 * computing)
        if code is None and not ended_by:
            raise RuntimeError(f"no mutant of {path.name}: {made[number].words}")
        late += ended_by in TIMERS.values()
        if code == 0:
            survivors.append(f"{path.relative_to(ROOT)}:{made[number].line}: {made[number].words}")
            print(f"  survived: {survivors[-1]}", flush=True)
    return {"mutants": len(chosen), "late": late, "survivors": survivors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    names = [target.module for target in TARGETS]
    parser.add_argument("--module", action="append", choices=names, help="one of the targets")
    parser.add_argument("--sample", type=int, help="so many mutants a module, not all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    chosen = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    import hypothesis.strategies  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    lines = []
    for target in TARGETS:
        if chosen.module and target.module not in chosen.module:
            continue
        began = time.monotonic()
        # a child of its own: another target has other modules to keep out
        found, _ = in_child(lambda t=target: examine(t, chosen.sample, chosen.seed), 1e5, 1e5)
        if found is None:
            raise SystemExit(f"{target.module} could not be examined.")
        total, left = found["mutants"], len(found["survivors"])
        part = 100 * (total - left) / total
        lines.append((target.module, total, total - left, found["late"], left, part))
        print(f"{target.module}: {time.monotonic() - began:.0f} s", flush=True)
    print("\n| module | mutants | killed | of these by time | survived | per cent |")
    print("|---|--:|--:|--:|--:|--:|")
    for module, *counts, part in lines:
        print(f"| `{module}` | {' | '.join(map(str, counts))} | {part:.1f} |")


if __name__ == "__main__":
    main()
