"""Pickling a DAG with its code, to the same bytes for the same DAG."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import IO, Any

import cloudpickle

from backfill.dag.abstract_operator import AbstractOperator
from backfill.dag.dag import DAG
from backfill.dag.dag_module import MODULE_PREFIX, is_below
from backfill.dag.mapped_operator import MappedOperator
from backfill.dag.templates import renderer_of
from backfill.exceptions import FrozenDagError

#: Fixed, so that coordinator and workers of one Python agree whatever their cloudpickle prefers.
_PROTOCOL = 5


def pickled(dag: DAG) -> bytes:
    """Return the DAG as bytes. Raises `FrozenDagError` naming the cause if something in it cannot be pickled."""
    shipped, dag.shipped_templates = dag.shipped_templates, {**_template_files(dag), **dag.shipped_templates}
    buffer = io.BytesIO()
    try:
        with _by_value(_own_modules(dag)):
            _Pickler(buffer).dump(dag)
    except Exception as error:
        raise FrozenDagError(
            f"The DAG {dag.dag_id!r} cannot be shipped ({type(error).__name__}: {error}); keep what cannot be pickled out of "
            "its tasks and globals, or run with donot_pickle (--donot-pickle)."
        ) from error
    finally:
        dag.shipped_templates = shipped
    return buffer.getvalue()


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Pickles equal DAGs to equal bytes.

    It leaves out the random id by which cloudpickle recognises a class that it has seen (a worker that thaws two versions
    of a DAG must not merge their classes either), and whether Python has read a module from source or from its cache.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, protocol=_PROTOCOL)
        self._file_names: dict[str, str] = {}

    def reducer_override(self, obj: Any) -> Any:
        """Return how to pickle `obj`."""
        if isinstance(obj, CodeType):
            # Whether this text is the same object as others tells source from cache, and shows in the pickle.
            own = self._file_names.setdefault(obj.co_filename, obj.co_filename.encode().decode())
            return self.dispatch_table[CodeType](obj.replace(co_filename=own))
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and isinstance(reduced, tuple) and reduced[0].__name__ in _TRACKED:
            position = _TRACKED[reduced[0].__name__]
            arguments = list(reduced[1])
            arguments[position] = None
            return (reduced[0], tuple(arguments), *reduced[2:])
        return reduced


#: cloudpickle's makers of classes, and which of their arguments is the id.
_TRACKED = {"_make_skeleton_class": 4, "_make_skeleton_enum": 5}


def _own_modules(dag: DAG) -> Iterator[ModuleType]:
    """Yield the loaded modules that belong to the DAG: its file's, and those beside it and below its DAGs folder."""
    folders = (
        {str(Path(dag.fileloc).parent), *([dag.folder] if dag.folder else [])} if Path(dag.fileloc).exists() else set()
    )
    for module in list(sys.modules.values()):
        own_file = getattr(module, "__file__", None) == dag.fileloc
        if own_file or getattr(module, "__name__", "").startswith(MODULE_PREFIX) or is_below(module, folders):
            yield module


@contextmanager
def _by_value(modules: Iterator[ModuleType]) -> Iterator[None]:
    registered = [module for module in modules if module.__name__ not in cloudpickle.list_registry_pickle_by_value()]
    registered = [
        module for module in registered if sys.modules.get(module.__name__) is module and module.__name__ != "__main__"
    ]
    for module in registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def _template_files(dag: DAG) -> dict[str, str]:
    """Return name and source of every template file that a task names, with those that they include."""
    names = sorted({name for task in dag.tasks for name in _file_names(task)})
    renderer = renderer_of(dag) if names else None
    found = {} if renderer is None else dict(pair for name in names for pair in renderer.sources_of(name))
    for subdag in dag.subdags:
        found = {**_template_files(subdag), **found}
    return found


def _file_names(task: AbstractOperator) -> Iterator[str]:
    endings = tuple(task.template_ext)
    values = (
        [task.partial_kwargs, vars(task.expand_input)]
        if isinstance(task, MappedOperator)
        else [getattr(task, field, None) for field in task.template_fields]
    )
    return (text for text in _texts_in(values) if endings and text.endswith(endings))


def _texts_in(value: object) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            yield from _texts_in(list(value.values()))
        case list() | tuple() | set():
            for member in value:
                yield from _texts_in(member)
        case _:
            return
