"""Wrong answers, made by the dozen: each is the model's code with one thing in it changed."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

import model_attempts
import model_database
import model_jobs
import model_runs
import model_stops
import model_task_instances

MODULES = (model_attempts, model_jobs, model_runs, model_stops, model_task_instances)

Change = Callable[[], None]


@dataclass(frozen=True)
class Mutant:
    """One function or constant of the model, changed."""

    module: ModuleType
    name: str
    #: What was changed, and in which line of the function.
    description: str
    code: ast.stmt

    def __str__(self) -> str:
        return f"{self.module.__name__}.{self.name}: {self.description}"

    @contextmanager
    def planted(self) -> Iterator[set[int]]:
        """Let it take the original's place; gives the identities of the statements that it answers, none for what only helps."""
        original = getattr(self.module, self.name)
        exec(
            compile(ast.Module([self.code], []), self.module.__name__, "exec"), vars(self.module)
        )  # the model's own code
        mutated = getattr(self.module, self.name)
        setattr(self.module, self.name, original)
        try:
            yield _replace(original, mutated)
        finally:
            _replace(mutated, original)


def _replace(old: Any, new: Any) -> set[int]:
    """Put `new` wherever `old` is known in the model; return the statements that it answers."""
    for module in MODULES:
        for name in [name for name, value in vars(module).items() if value is old]:
            setattr(module, name, new)
    answered = {key: known for key, (known, answerer) in model_database._ANSWERERS.items() if answerer is old}
    model_database._ANSWERERS.update((key, (known, new)) for key, known in answered.items())
    return set(answered)


def all_mutants() -> Iterator[Mutant]:
    """Yield every one of them."""
    for module in MODULES:
        for node in ast.parse(inspect.getsource(module)).body:
            match node:
                case ast.FunctionDef():
                    yield from _mutants_of(module, node.name, node)
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Tuple()):
                    yield from _mutants_of(module, name, node)


def _mutants_of(module: ModuleType, name: str, original: ast.stmt) -> Iterator[Mutant]:
    for number in range(len(list(_changes(original)))):
        node = deepcopy(original)
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []
        description, change = list(_changes(node))[number]
        change()
        yield Mutant(module, name, description, ast.fix_missing_locations(node))


def _changes(top: ast.stmt) -> Iterator[tuple[str, Change]]:
    """Yield what can be changed in `top`: what, and how to change it."""
    for node in ast.walk(top):
        place = f"in line {getattr(node, 'lineno', 0) - top.lineno}"
        for what, change in (*_left_out(node), *_turned(node), *_changes_below(node)):
            yield f"{what} {place}", change


def _left_out(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield what can be left out of a node."""
    match node:
        case ast.BoolOp(values=values, op=operator):
            neutral = ast.Constant(isinstance(operator, ast.And))
            for number, operand in enumerate(values):
                yield f"without {ast.unparse(operand)}", partial(values.__setitem__, number, neutral)
        case ast.Set(elts=items) | ast.Tuple(elts=items, ctx=ast.Load()) if (
            all(map(_is_word, items)) and len(items) > 1
        ):
            yield from _without_each(items)
        case ast.comprehension(ifs=conditions):
            yield from _without_each(conditions)
        case ast.Call(func=ast.Attribute(attr="change"), keywords=keywords):
            yield from _without_each(keywords)
        case ast.Dict(keys=keys, values=values):
            for number, key in enumerate(keys):
                yield f"without {ast.unparse(key) if key else '**'}", partial(_drop, number, keys, values)


def _turned(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield what can be put upside down in a node."""
    match node:
        case ast.If(test=test) | ast.IfExp(test=test):
            for value in (True, False):
                yield f"{ast.unparse(test)} is {value}", partial(setattr, node, "test", ast.Constant(value))
        case ast.Compare(ops=[ast.Lt() | ast.LtE() | ast.Gt() | ast.GtE() as operator]):
            yield ast.unparse(node) + " at its bound", partial(node.ops.__setitem__, 0, _AT_THE_BOUND[type(operator)]())
        case ast.BinOp(op=ast.Add() | ast.Sub()):
            other = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield f"{ast.unparse(node)} the other way round", partial(setattr, node, "op", other)


_AT_THE_BOUND = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


def _changes_below(node: ast.AST) -> Iterator[tuple[str, Change]]:
    """Yield what can take the place of one of a node's children."""
    for field, value in ast.iter_fields(node):
        match value:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield f"{ast.unparse(operand)} without not", partial(setattr, node, field, operand)
            case ast.Call(func=ast.Name(id="sorted"), args=[unsorted, *_]):
                as_list = ast.Call(ast.Name("list", ast.Load()), [unsorted], [])
                yield f"{ast.unparse(unsorted)} unsorted", partial(setattr, node, field, as_list)
            case [ast.stmt(), *_]:
                for number, statement in enumerate(value):
                    if isinstance(statement, ast.Expr | ast.Delete) and not _is_word(
                        getattr(statement, "value", statement)
                    ):
                        yield f"without {ast.unparse(statement)}", partial(value.__setitem__, number, ast.Pass())


def _is_word(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _without_each(items: list[Any]) -> Iterator[tuple[str, Change]]:
    for number, item in enumerate(items):
        yield f"without {ast.unparse(item)}", partial(_drop, number, items)


def _drop(number: int, *lists: list[Any]) -> None:
    for items in lists:
        del items[number]
