"""Whatever has a public name says what it is, or takes the place of something that does."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import simprompt

NEEDS = {
    "simprompt.deploy.server": "fastapi",
    "simprompt.deploy.gate": "starlette",
    "simprompt.deploy.connection": "uvicorn",
    "simprompt.experiments.sweep.ray": "ray",
}


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.walk_packages(simprompt.__path__, "simprompt."):
        extra = NEEDS.get(found.name)
        if found.name == "simprompt.__main__" or (extra and not importlib.util.find_spec(extra)):
            continue
        yield importlib.import_module(found.name)


def says(member: Any) -> bool:
    """Whether a function, a property or a class has a docstring of its own."""
    text = getattr(member, "__doc__", None) or ""
    made = isinstance(member, type) and text.startswith(f"{member.__name__}(")  # by `dataclass`
    return bool(text.strip()) and not made


def silent(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        ours = getattr(value, "__module__", None) == module.__name__
        if name.startswith("_") or not (
            ours and (inspect.isfunction(value) or inspect.isclass(value))
        ):
            continue
        if not says(value):
            yield f"{module.__name__}.{name}"
        if isinstance(value, type):
            yield from (f"{module.__name__}.{name}.{member}" for member in silent_members(value))


def silent_members(kind: type) -> Iterator[str]:
    bases = [base for base in kind.__mro__[1:] if base.__module__.startswith("simprompt")]
    for name, member in vars(kind).items():
        member = getattr(member, "__func__", member)
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        if not any(map(says, (member, *(vars(base).get(name) for base in bases)))):
            yield name


def test_every_public_name_says_what_it_is():
    assert [name for module in modules() for name in silent(module)] == []


def test_what_says_nothing_is_found():
    module = ModuleType("toy")
    code = "class A:\n    'Says.'\n    def b(self): pass\n    def _c(self): pass\ndef d(): pass\n"
    exec(code, vars(module) | {"__name__": "toy"}, vars(module))
    for value in (module.A, module.d):
        value.__module__ = "toy"
    assert list(silent(module)) == ["toy.A.b", "toy.d"]
    assert not says(lambda: None)
