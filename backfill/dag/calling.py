"""Calling a user's function with what it asks for from the context."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from backfill.dag.context import CONTEXT_NAMES
from backfill.exceptions import DagError


def call_with_context(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], context: Mapping[str, Any]
) -> Any:
    """Call `function(*args, **kwargs)` with the names of the context that it takes added; with `**`, all of them."""
    return function(*args, **{**_wanted(function, len(args), context), **kwargs})


def _wanted(function: Callable[..., Any], positional: int, context: Mapping[str, Any]) -> dict[str, Any]:
    parameters = _parameters(function)
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = {p.name for p in parameters[:positional] if p.kind is not p.VAR_KEYWORD}
        only_positional = {p.name for p in parameters if p.kind is p.POSITIONAL_ONLY}
        return {name: context[name] for name in context if name not in taken | only_positional}
    named = [p.name for p in parameters[positional:] if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    return {name: context[name] for name in named if name in context}


def _parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """Return the parameters of `function`; none of a built-in that tells no signature."""
    try:
        return _known_parameters(function)
    except TypeError:  # an object that cannot be hashed
        return _known_parameters.__wrapped__(function)


@lru_cache(maxsize=512)
def _known_parameters(function: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    # worked out once for each function: it takes as long as a short task
    try:
        return tuple(inspect.signature(function).parameters.values())
    except ValueError:
        return ()


def check_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], owner: str) -> None:
    """Raise `DagError` if `function` cannot be called with these arguments; context names need not be given."""
    signature = inspect.signature(function)
    bindable = signature.replace(parameters=_with_defaults(list(signature.parameters.values())))
    try:
        bindable.bind(*args, **kwargs)
    except TypeError as error:
        raise DagError(f"{owner} cannot be called like this: {error}.") from None


def _with_defaults(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """Return the parameters where those filled from the context, and all after one with a default, are optional."""
    optional = False
    changed = []
    for p in parameters:
        variable = p.kind in {p.VAR_POSITIONAL, p.VAR_KEYWORD}
        optional = optional or (p.name in CONTEXT_NAMES and p.kind is not p.KEYWORD_ONLY)
        filled = not variable and p.default is p.empty and (optional or p.name in CONTEXT_NAMES)
        changed.append(p.replace(default=None) if filled else p)
    return changed


def check_names(function: Callable[..., Any], names: Sequence[str], owner: str) -> None:
    """Raise `DagError` naming the first of `names` that `function` does not take."""
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    known = [p.name for p in parameters if p.kind in {p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY}]
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        takes = ", ".join(known) or "nothing"
        raise DagError(f"{owner} got the argument {unknown!r}, which the function does not take; it takes {takes}.")
