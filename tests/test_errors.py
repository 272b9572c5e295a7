"""docs/errors.md is what the code says."""

from __future__ import annotations

import ast

import catalogue


def test_the_page_is_not_stale():
    assert catalogue.PAGE.read_text(encoding="utf-8") == catalogue.page(), "run `make errors`"


def test_every_group_has_messages_and_every_room_is_in_one_group():
    assert all(catalogue.found().values())
    rooms = [room for some in catalogue.GROUPS.values() for room in some]
    assert len(rooms) == len({*rooms})


def test_a_template():
    code = """
WORDS = "a or b"
class Own(SimpromptError): ...
def f(path, why):
    what = f"{path!r} is damaged"
    raise Own(f"{what}: {', '.join(why)}. " + f"Take {WORDS}{'' if why else ', or c'}; {x.y(1)}.")
def refuse(status, message):
    raise Own(404, message)
def g():
    refuse(404, f"No {x.name}. Ask again.")
"""
    tree = ast.parse(code)
    known = catalogue.kinds([tree])
    assert known == {"SimpromptError", "Own"}
    assert list(catalogue.Module(tree, known).messages()) == [
        "{what}: {why, ...}. Take a or b, or c; {y}.",
        "No {x}. Ask again.",
    ]


def test_no_message_names_an_extra_of_a_package_that_is_on_no_index():
    """Before a release `pip install simprompt[x]` finds nothing."""
    named = [
        f"{path.name}: {line}"
        for path in catalogue.SOURCE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "pip install" in line and "simprompt[" in line
    ]
    assert not named
