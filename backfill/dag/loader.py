"""Reading DAG files: one file, a folder of them, or the DAG that an operator means by TARGET."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from backfill.dag.dag import DAG
from backfill.dag.dag_module import execute_dag_file
from backfill.dag.matching import compiled, matching
from backfill.exceptions import DagChanged, DagError, DagImportError, DagNotFound

#: `path.py` or `path.py:dag_id`.
_FILE_TARGET = re.compile(r"(?P<file>.+\.py)(?::(?P<dag_id>.+))?")
#: Folders in which no DAG files are looked for.
_PASSED_OVER = {"__pycache__", "node_modules", "site-packages"}


@dataclass(frozen=True, slots=True)
class LoadedDag:
    """A DAG and the file that it came from. `file_hash` is the SHA-256 of the file's content, in hex."""

    dag: DAG
    file: Path
    file_hash: str


@dataclass(frozen=True, slots=True)
class FolderContents:
    """What the DAG files of a folder hold: DAGs by id, and the files that cannot be loaded."""

    dags: dict[str, LoadedDag] = field(default_factory=dict)
    errors: list[DagImportError] = field(default_factory=list)


def load_file(path: Path | str, *, dags_folder: Path | None = None) -> list[DAG]:
    """Return the DAGs of a file in the order of definition, each followed by its subdags; the file runs anew each time.

    Modules beside it, and below `dags_folder`, can be imported by it. Raises `DagNotFound` if there is no such file,
    `DagImportError` with the line in the file for anything that goes wrong in it, also for a DAG that is wrong in itself.
    """
    file = _existing(Path(path))
    tops = [dag for dag in execute_dag_file(file, dags_folder) if dag.parent_dag is None]
    _refuse_twins(file, tops)
    for dag in tops:
        try:
            dag.validate()
        except DagError as error:
            raise DagImportError(str(file), None, str(error).rstrip(".")) from error
    return [each for dag in tops for each in (dag, *dag.subdags)]


def load_folder(folder: Path | str) -> FolderContents:
    """Return the DAGs of all DAG files below `folder` (or of the one file that it is); files with errors do not stop it.

    A DAG file is a `.py` file that mentions both `backfill` and `dag`. Raises `DagNotFound` if there is no such folder.
    """
    root = _existing_folder(Path(folder))
    contents = FolderContents()
    for file in dag_files(root):
        try:
            _add(contents, file, load_file(file, dags_folder=root if root.is_dir() else root.parent))
        except DagImportError as error:
            contents.errors.append(error)
    return contents


def find_dag(target: str, dags_folder: Path | str) -> LoadedDag:
    """Return the DAG that `target` names: a DAG id, `path.py`, or `path.py:dag_id`.

    Raises `DagNotFound` naming what there is instead, `DagImportError` if the file named cannot be loaded.
    """
    match = _FILE_TARGET.fullmatch(target)
    if match is None:
        return _find_by_id(target, Path(dags_folder))
    file = Path(match["file"])
    dags = load_file(file, dags_folder=Path(dags_folder))
    return LoadedDag(_choose(file, dags, match["dag_id"]), file.resolve(), hash_of(file))


def find_unchanged(dag_id: str, dags_folder: Path | str, *, file: str, content_hash: str) -> LoadedDag:
    """Return a DAG of which it is known in which file it was found: from the same path, else by its id in `dags_folder`.

    Machines may have their DAGs at different places. Raises `DagNotFound` where it is in neither, and `DagChanged` for a file of
    another content; an empty `content_hash` takes any.
    """
    path = Path(file)
    is_there = bool(file) and path.is_file()
    if is_there:
        _refuse_changed(path, content_hash)
    found = find_dag(f"{path}:{dag_id}" if is_there else dag_id, dags_folder)
    _refuse_changed(found.file, content_hash)
    return found


def _refuse_changed(file: Path, content_hash: str) -> None:
    if content_hash and hash_of(file) != content_hash:
        raise DagChanged(
            f"The DAG file {file} differs from the one that the job was made with; bring it in line, or make the job anew."
        )


def find_dags(dag_id_regex: str, dags_folder: Path | str) -> tuple[list[LoadedDag], list[DagImportError]]:
    """Return the DAGs of a folder whose id has a match of `dag_id_regex`, in order of dag_id, and the files that cannot be loaded.

    Subdags are no DAGs of their own here. Raises `UsageError` for a bad regex, `DagNotFound` if there is no match.
    """
    compiled(dag_id_regex)  # before the files are loaded, which takes longer
    contents = load_folder(dags_folder)
    tops = {dag_id: loaded for dag_id, loaded in contents.dags.items() if loaded.dag.parent_dag is None}
    matches = [tops[dag_id] for dag_id in matching(dag_id_regex, sorted(tops))]
    if not matches:
        broken = f" {contents.errors[0]}" if contents.errors else ""
        raise DagNotFound(
            f"No DAG in {dags_folder} has an id that matches {dag_id_regex!r}; {_instead('', list(tops))}{broken}"
        )
    for loaded in matches:
        _refuse_if_defined_twice(loaded.dag.dag_id, contents)
    return matches, contents.errors


def hash_of(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _existing_folder(path: Path) -> Path:
    """Return the DAGs folder, or the file that stands for it."""
    if not path.exists():
        raise DagNotFound(
            f"There is no DAGs folder {path}; make it, name another with core.dags_folder or -S, or give the DAG's file, "
            "as in path/to/file.py."
        )
    return path.resolve()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise DagNotFound(
            f"There is no file {path}; correct the path, or set core.dags_folder or -S to where the DAG files are."
        )
    return path.resolve()


def dag_files(root: Path) -> Iterator[Path]:
    """Yield the DAG files below a folder in a stable order, or the one file."""
    if root.is_file():
        yield root
        return
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name in _PASSED_OVER:
            continue
        if path.is_dir() and not (path / "pyvenv.cfg").exists():
            yield from dag_files(path)
        elif path.suffix == ".py" and _mentions_dags(path):
            yield path


def _mentions_dags(file: Path) -> bool:
    content = file.read_bytes().lower()
    return b"backfill" in content and b"dag" in content


def _add(contents: FolderContents, file: Path, dags: list[DAG]) -> None:
    file_hash = hash_of(file)
    for dag in dags:
        if dag.dag_id in contents.dags:
            other = contents.dags[dag.dag_id].file
            raise DagImportError(
                str(file), None, f"its DAG {dag.dag_id!r} is defined in {other} already; rename one of them"
            )
        contents.dags[dag.dag_id] = LoadedDag(dag, file, file_hash)


def _refuse_twins(file: Path, dags: list[DAG]) -> None:
    seen: set[str] = set()
    for dag in dags:
        if dag.dag_id in seen:
            raise DagImportError(str(file), None, f"it defines the DAG {dag.dag_id!r} twice; rename one of them")
        seen.add(dag.dag_id)


def _choose(file: Path, dags: list[DAG], dag_id: str | None) -> DAG:
    """Return the DAG of that id, or the only one; subdags count when named only."""
    if not dags:
        raise DagNotFound(
            f"The file {file} defines no DAG; it needs a `with DAG(…)` or a call of a function under @dag."
        )
    if dag_id is not None:
        named = next((dag for dag in dags if dag.dag_id == dag_id), None)
        if named is None:
            raise DagNotFound(
                f"The file {file} defines no DAG {dag_id!r}; {_instead(dag_id, [dag.dag_id for dag in dags])}"
            )
        return named
    tops = [dag for dag in dags if dag.parent_dag is None]
    if len(tops) > 1:
        names = ", ".join(dag.dag_id for dag in tops)
        raise DagNotFound(
            f"The file {file} defines {len(tops)} DAGs ({names}); name one, as in {file}:{tops[0].dag_id}."
        )
    return tops[0]


def _find_by_id(dag_id: str, dags_folder: Path) -> LoadedDag:
    contents = load_folder(dags_folder)
    _refuse_if_defined_twice(dag_id, contents)
    if dag_id in contents.dags:
        return contents.dags[dag_id]
    raise DagNotFound(
        f"There is no DAG {dag_id!r} in {dags_folder}; "
        f"{_instead(dag_id, list(contents.dags))}{_perhaps_in(dag_id, contents.errors)}"
    )


def _refuse_if_defined_twice(dag_id: str, contents: FolderContents) -> None:
    twin = next((error for error in contents.errors if f"DAG {dag_id!r} is defined in" in error.reason), None)
    if twin is not None:
        raise DagNotFound(
            f"The DAG {dag_id!r} is defined twice, in {contents.dags[dag_id].file} and {twin.file}; "
            f"name the one you mean, as in {twin.file}:{dag_id}."
        )


def _perhaps_in(dag_id: str, errors: list[DagImportError]) -> str:
    """Name the file that cannot be loaded and may be where the DAG is: one that has its id in its text or as its name, else the first."""
    if not errors:
        return ""
    likely = next(
        (error for error in errors if dag_id == Path(error.file).stem or dag_id.encode() in _content(error.file)),
        errors[0],
    )
    others = len(errors) - 1
    more = f" ({others} more cannot be loaded either; `backfill dags list` names them)" if others else ""
    return f" {likely}{more}"


def _content(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""


def _instead(dag_id: str, dag_ids: list[str], most: int = 8) -> str:
    """Return what to say of the DAGs that there are."""
    close = get_close_matches(dag_id, dag_ids, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    if not dag_ids:
        return "there are none."
    more = f" and {len(dag_ids) - most} others" if len(dag_ids) > most else ""
    return f"there are {', '.join(sorted(dag_ids)[:most])}{more}."
