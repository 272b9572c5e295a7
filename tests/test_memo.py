"""What a process keeps: bounded, thread-safe, empty in copies, open in forked children."""

from __future__ import annotations

import ast
import copy
import os
import pickle
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simprompt.utils.cache import Lock, Memo

SOURCE = Path(__file__).parents[1] / "src" / "simprompt"

KEYS_OF_THE_PACKAGE = {
    # `functools.cache` with arguments: every key stands for a part of what the package ships
    "novel/wordnet.py:_ancestors": "positions of the bundled synsets",
    "data/image_files.py:_has_reader": "two formats",
    "data/layouts/__init__.py:_layouts": "folders of layouts, one list a process",
    "utils/plugins.py:_of_package": "files that ship",
    # of one reading of one table: its columns
    "data/own_images/tables.py:values": "columns of a file",
    "data/own_images/hf.py:values": "columns of a split",
}
TABLES = {
    # module-level tables that the package writes to
    "cli/main.py:_words": "of the process's one command line",
    "features/digests.py:_datasets": "an entry goes with its dataset",
    "clip/fingerprint.py:_known": "an entry goes with its model",
    "clip/fingerprint.py:_origins": "an entry goes with its model",
    "utils/plugins.py:_loaded": "files that the user named",
    "features/store.py:_checked": "emptied where it has MOST_CHECKED entries",
    "utils/cache.py:_forkable": "an entry goes with its object",
}


@given(
    most=st.integers(1, 12),
    uses=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), max_size=60),
)
def test_a_memo_keeps_what_was_used_last(most, uses):
    memo: Memo[int, int] = Memo(most)
    model: OrderedDict[int, int] = OrderedDict()  # key -> weight, oldest first
    for key, weight in uses:
        computed = []
        value = memo.get(key, lambda key=key, seen=computed: seen.append(1) or 10 * key, weight)
        assert value == 10 * key
        assert bool(computed) == (key not in model)
        if key in model:
            model.move_to_end(key)
        else:
            model[key] = weight
            while sum(model.values()) > most and len(model) > 1:
                model.popitem(last=False)
        assert len(memo) == len(model)
        assert all(key in memo for key in model)


def test_threads_that_ask_for_one_key_share_one_computation():
    memo: Memo[str, object] = Memo(4)
    computed = []

    def compute() -> object:
        computed.append(threading.get_ident())
        time.sleep(0.05)
        return object()

    start = threading.Barrier(16)

    def ask(_: int) -> object:
        start.wait()
        return memo.get("key", compute)

    with ThreadPoolExecutor(16) as pool:
        values = list(pool.map(ask, range(16)))
    assert len(computed) == 1
    assert len({id(value) for value in values}) == 1


def test_different_keys_are_computed_at_the_same_time():
    memo: Memo[int, int] = Memo(4)
    together = threading.Barrier(3, timeout=20)  # broken where they wait for each other
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda key: memo.get(key, together.wait), range(3)))
    assert len(memo) == 3


def test_an_error_is_not_kept():
    memo: Memo[str, int] = Memo(4)
    with pytest.raises(ZeroDivisionError):
        memo.get("key", lambda: 1 // 0)
    assert memo.get("key", lambda: 7) == 7


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_of_a_memo_are_empty_and_locks_are_open(copied):
    memo: Memo[str, object] = Memo(4)
    memo.put("key", lambda: None)  # which cannot be pickled
    other = copied(memo)
    assert (len(other), other.most, len(memo)) == (0, 4, 1)
    lock = Lock()
    with lock, ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: copied(lock).__enter__() is None).result(20)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_waits_for_no_thread_of_its_parent():
    memo: Memo[str, int] = Memo(4)
    lock, computing, done = Lock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            memo.get("key", lambda: (computing.set(), done.wait(60), 1)[2])

    holder = threading.Thread(target=hold)
    holder.start()
    assert computing.wait(20)
    child = os.fork()
    if child == 0:
        with lock:
            os._exit(memo.get("key", lambda: 2))
    ended, limit = 0, time.monotonic() + 20
    while not ended and time.monotonic() < limit:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.01)
    if not ended:
        os.kill(child, 9)
        os.waitpid(child, 0)
    done.set()
    holder.join()
    assert ended, "the child hangs"
    assert os.waitstatus_to_exitcode(status) == 2


def name_of(decorator: ast.expr) -> str:
    return ast.unparse(decorator).removeprefix("functools.")


def test_no_table_of_the_package_grows_without_a_bound():
    """Each memo is a `Memo`, has a maximum, or has keys that the package itself bounds."""
    unbounded, tables = set(), set()
    for path in SOURCE.rglob("*.py"):
        place = path.relative_to(SOURCE).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                names = {name_of(decorator) for decorator in node.decorator_list}
                endless = names & {"cache", "lru_cache(None)", "lru_cache(maxsize=None)"}
                if endless and (node.args.args or node.args.kwonlyargs or node.args.vararg):
                    unbounded.add(f"{place}:{node.name}")
        for node in tree.body:
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            empty = ast.unparse(node.value) in (
                "{}", "[]", "set()", "dict()", "list()", "OrderedDict()",
                "weakref.WeakKeyDictionary()", "weakref.WeakValueDictionary()", "weakref.WeakSet()",
            )  # fmt: skip
            if empty or "defaultdict(" in ast.unparse(node.value):
                tables |= {f"{place}:{ast.unparse(target)}" for target in targets}
    assert unbounded == set(KEYS_OF_THE_PACKAGE)
    assert tables == set(TABLES)
