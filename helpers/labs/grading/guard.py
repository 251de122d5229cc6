"""What trusted functions were before a learner's code ran, and are made again.

A learner's code shares the interpreter with the tests, so it may replace what they rely
on: `helpers.labs.checks`, `torch.testing.assert_close`, a builtin. A `Guard` remembers
these functions, their code included; `restore` puts back what differs and names it.
Code that sets out to alter the memory of its process can still defeat this; see `room`
for what else is done.
"""

import builtins
import contextlib
import functools
import re
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType

# Packages and modules that checks and tests call, or are made of.
PACKAGES = {"helpers", "builtins", "math", "inspect", "functools", "operator", "ast"}
PACKAGES |= {"json", "io", "socket", "contextlib", "traceback"}
MODULES = {"torch", "torch.functional", "torch.nn.functional", "torch._tensor"}
MODULES |= {"torch.testing", "torch.testing._comparison", "numpy", "numpy.testing"}
ABSENT = object()
CHECKS = re.compile(r"lab\d\d")  # of one lab; those of others take seconds to load


def load_faces() -> None:
    """Load what the faces of the wings in use hold back, until there is nothing more.

    A wing loads a module when one of its names is first asked for. A learner could be
    the first, and alter the module before a guard has seen it.
    """
    done: set[str] = set()
    while faces := {name for name in sys.modules if _is_face(name)} - done:
        for face in sorted(faces):
            for name in vars(sys.modules[face])["__all__"]:
                if not CHECKS.fullmatch(name):
                    with contextlib.suppress(Exception):  # nobody can use it, then
                        getattr(sys.modules[face], name)
        done |= faces


class Guard:
    """Remember the trusted modules, their functions and classes as they are now.

    The wings of `helpers` that are in use are loaded whole before that.
    """

    def __init__(self):
        load_faces()
        self.modules = {n: m for n, m in sys.modules.items() if _trusted(n, m)}
        self.owners: list[tuple[str, object, dict, set]] = []
        self.parts: list[tuple[str, object, str, object]] = []
        for name, module in self.modules.items():
            self._keep(name, module)
            for key, value in list(vars(module).items()):
                if isinstance(value, type) and value.__module__ == name:
                    self._keep(f"{name}.{key}", value)
        self.restore = functools.partial(_alone(Guard.restore), self)

    def _keep(self, label: str, owner: object) -> None:
        everything = dict(vars(owner))
        # Constants of ours too: a test may compare with them.
        ours = label.startswith("helpers.")
        kept = {k: v for k, v in everything.items() if _code(v) or ours and k.isupper()}
        self.owners.append((label, owner, kept, set(everything)))
        for key, value in kept.items():
            self.parts += [(f"{label}.{key}", *part) for part in _parts(value)]

    def codes(self, package: str) -> set[CodeType]:
        """The code of all functions of a package, and of those inside them."""
        found = set()
        for label, _, part, value in self.parts:
            if part == "__code__" and f"{label}.".startswith(f"{package}."):
                found |= codes(value)
        return found

    def restore(self) -> list[str]:
        """Put everything back; return the names of what was not as it had been."""
        changed = set()
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                sys.modules[name] = module
                changed.add(name)
        for label, owner, kept, names in self.owners:
            now = dict(vars(owner))
            for key, value in kept.items():
                if now.get(key, ABSENT) is not value:
                    setattr(owner, key, value)
                    changed.add(f"{label}.{key}")
            for key in now.keys() - names:
                if _hides(owner, key, now[key]):
                    delattr(owner, key)
                    changed.add(f"{label}.{key}")
        for label, owner, part, value in self.parts:
            if _read(owner, part) is not value:
                setattr(owner, part, value)
                changed.add(label)
        return sorted(changed)


def codes(code: CodeType) -> set[CodeType]:
    """A piece of code and all that is defined inside it."""
    inside = (part for part in code.co_consts if isinstance(part, CodeType))
    return {code}.union(*map(codes, inside))


def _alone(function: FunctionType) -> FunctionType:
    """A copy of a function of this module with names and builtins of its own.

    Nobody can exchange what it calls: `setattr` is a builtin that code may replace.
    """
    space = {**globals(), "__builtins__": dict(vars(builtins))}
    for name, value in list(space.items()):
        if isinstance(value, FunctionType) and value.__module__ == __name__:
            space[name] = _moved(value, space)
    return _moved(function, space)


def _moved(function: FunctionType, space: dict) -> FunctionType:
    code, name, defaults = function.__code__, function.__name__, function.__defaults__
    return FunctionType(code, space, name, defaults)


def _is_face(name: str) -> bool:
    return name.startswith("helpers.") and "__all__" in vars(sys.modules[name])


def _trusted(name: str, module: object) -> bool:
    known = name in MODULES or name.partition(".")[0] in PACKAGES
    return known and isinstance(module, ModuleType)


def _code(value: object) -> bool:
    return callable(value) or isinstance(value, ModuleType | property)


def _parts(value: object) -> Iterator[tuple[object, str, object]]:
    """What can be exchanged inside a function, and in those that it decorates."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    while isinstance(value, FunctionType):
        for part in ("__code__", "__defaults__", "__kwdefaults__"):
            yield value, part, getattr(value, part)
        for cell in value.__closure__ or ():
            if callable(content := _read(cell, "cell_contents")):
                yield cell, "cell_contents", content
        value = vars(value).get("__wrapped__")


def _read(owner: object, part: str) -> object:
    try:
        return getattr(owner, part)
    except ValueError:  # an empty closure cell
        return None


def _hides(owner: object, key: str, value: object) -> bool:
    """Does a new name take the place of a builtin, or of an inherited method?"""
    if isinstance(owner, ModuleType):
        return hasattr(builtins, key) and not key.startswith("__")
    inherited = any(key in vars(base) for base in owner.__mro__[1:])
    # Python itself adds some, such as `__annotations__`, when one looks at them.
    return inherited and (callable(value) or not key.startswith("__"))
