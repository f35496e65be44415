"""Whether a function is its module's own: agents put others in the place of those that see each request."""

import sys
from types import FunctionType
from typing import Any


def replaced_by(function: Any, module: str) -> str | None:
    """Return the file, or the module, of what stands in the place of a function of a module; None for its own."""
    # Not `isinstance`: the wrappers of some agents pass for the function that they wrap.
    origin = function.__code__.co_filename if type(function) is FunctionType else type(function).__module__
    return None if origin == sys.modules[module].__file__ else origin


def is_own(kind: type, name: str) -> bool:
    """Whether a method of a class, and each one that it overrides, is that of the module of its class."""
    owners = [owner for owner in kind.__mro__ if name in vars(owner)]
    return not any(replaced_by(vars(owner)[name], owner.__module__) for owner in owners)
