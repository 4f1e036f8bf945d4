"""Running a DAG file as a module of its own."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType

from backfill.dag import scope
from backfill.dag.dag import DAG
from backfill.exceptions import BackfillError, DagImportError

#: Modules of DAG files are named after this, the content and the file.
MODULE_PREFIX = "backfill_dag_"
_STANDARD_LIBRARY = str(Path(traceback.__file__).parent)


def execute_dag_file(file: Path, dags_folder: Path | None) -> list[DAG]:
    """Run `file` (absolute) and return the DAGs that it made: entered with `with` or `@dag`, or held by a global.

    Raises `DagImportError` with the file's line at fault.
    """
    source = _read(file)
    code = _compiled(source, file)
    # The name depends on content and place only: the same file frozen twice is the same, two versions of it are two modules.
    digest = hashlib.sha256(str(file).encode() + b"\0" + source).hexdigest()[:12]
    module = ModuleType(f"{MODULE_PREFIX}{digest}_{file.stem}")
    module.__file__ = str(file)
    module.__spec__ = importlib.util.spec_from_loader(module.__name__, loader=None, origin=str(file))
    folders = [str(file.parent)] + ([str(dags_folder.resolve())] if dags_folder is not None else [])
    sys.modules[module.__name__] = module
    with _importing_from(folders), scope.entered_dags() as entered:
        _run(code, module, file)
    held = [value for value in vars(module).values() if isinstance(value, DAG)]
    # What another DAG file makes when it is imported belongs to that file; what its functions make for this one is ours.
    dags = [dag for dag in dict.fromkeys([*entered, *held]) if dag.made_in_function or dag.fileloc == str(file)]
    for dag in dags:
        dag.fileloc = str(file)
        dag.folder = folders[-1] if file.is_relative_to(folders[-1]) else folders[0]
    return dags


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DagImportError(str(file), None, f"it cannot be read ({error.strerror})") from error


def _compiled(source: bytes, file: Path) -> CodeType:
    try:
        return compile(source, str(file), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise DagImportError(str(file), error.lineno, f"syntax error: {error.msg}") from error
    except ValueError as error:  # null bytes
        raise DagImportError(str(file), None, str(error)) from error


def _run(code: CodeType, module: ModuleType, file: Path) -> None:
    try:
        exec(code, vars(module))  # noqa: S102  # a DAG file is the operator's own program
    except SyntaxError as error:  # in a module that it imports
        raise DagImportError(str(error.filename), error.lineno, f"syntax error: {error.msg}") from error
    except (Exception, SystemExit) as error:
        raise DagImportError(str(file), _line_in(file, error), _reason(error)) from error


def _line_in(file: Path, error: BaseException) -> int | None:
    """Return the innermost line of `file` that the error went through."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(file)), None)


def _reason(error: BaseException) -> str:
    text = str(error).rstrip(".")
    if isinstance(error, BackfillError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextmanager
def _importing_from(folders: list[str]) -> Iterator[None]:
    """Let modules in `folders` be imported, fresh; they stay importable behind everything else, for imports in functions."""
    _forget_modules_beside_dags()
    path, loaded = list(sys.path), set(sys.modules)
    sys.path[:0] = folders
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path + [folder for folder in dict.fromkeys(folders) if folder not in path]
        new = {name: module for name, module in sys.modules.items() if name not in loaded}
        _beside_dags.update(name for name, module in new.items() if is_below(module, set(folders)))


#: Names of the modules that DAG files have imported from folders of DAG files.
_beside_dags: set[str] = set()


def _forget_modules_beside_dags() -> None:
    """Take modules that DAG files have imported from beside them out of `sys.modules`, so that they are read as they are now.

    Two DAG folders may each have their own `common.py`, and an edited one must be seen.
    """
    while _beside_dags:
        sys.modules.pop(_beside_dags.pop(), None)


def is_below(module: object, folders: set[str]) -> bool:
    """Tell if a module's Python file lies below one of `folders`, and is no installed package or part of this program."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "__main__")
    if (
        not isinstance(file, str)
        or not file.endswith(".py")
        or name == "__main__"
        or name.partition(".")[0] in {"backfill", "workers"}
    ):
        return False
    if "site-packages" in file or "dist-packages" in file or file.startswith(_STANDARD_LIBRARY):
        return False
    return any(Path(file).is_relative_to(folder) for folder in folders)
