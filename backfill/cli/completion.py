"""What the shell is offered for TARGET and JOB: found without running a DAG file and without starting a server."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from backfill.config import Settings, load_settings
from backfill.dag.loader import dag_files

#: How long somebody who pressed a key waits for a database.
_PATIENCE = timedelta(seconds=1)
#: Jobs that are offered, the newest.
_JOBS = 30


def complete_target(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the DAGs of the DAGs folder, and files."""
    found: list[CompletionItem] = []
    with suppress(Exception):  # a shell that completes has no place for errors
        folder = Path(ctx.params.get("subdir") or load_settings().core.dags_folder)
        found = [
            CompletionItem(dag_id, help=str(file)) for dag_id, file in dag_ids(folder) if dag_id.startswith(incomplete)
        ]
    return [*found, CompletionItem(incomplete, type="file")]


def complete_job(incomplete: str) -> list[CompletionItem]:
    """Offer the newest jobs, if the database can be asked at once."""
    with suppress(Exception):  # as above
        return [
            CompletionItem(str(job_id), help=f"{dag_id}, {state}")
            for job_id, dag_id, state in _jobs(load_settings())
            if str(job_id).startswith(incomplete)
        ]
    return []


def dag_ids(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the ids of DAGs that stand in the files of `folder` as plain texts, with their files."""
    for file in dag_files(folder):
        with suppress(SyntaxError, ValueError, OSError):
            for node in ast.walk(ast.parse(file.read_bytes())):
                dag_id = _dag_id(node)
                if dag_id is not None:
                    yield dag_id, file


def _dag_id(node: ast.AST) -> str | None:
    """Return the id of the DAG that a node makes: `DAG("id")`, or a function under `@dag`."""
    if isinstance(node, ast.Call) and _name(node.func) == "DAG":
        return _given_id(node)
    if isinstance(node, ast.FunctionDef):
        for decorator in node.decorator_list:
            if _name(decorator) == "dag":
                return node.name
            if isinstance(decorator, ast.Call) and _name(decorator.func) == "dag":
                return _given_id(decorator) or node.name
    return None


def _name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _given_id(call: ast.Call) -> str | None:
    values = [keyword.value for keyword in call.keywords if keyword.arg == "dag_id"] + call.args[:1]
    return next((v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)), None)


def _jobs(settings: Settings) -> list[tuple[int, str, str]]:
    """Return number, DAG and state of the newest jobs; none where no server runs that could be asked."""
    from backfill.bootstrap import open_runtime  # noqa: PLC0415  # takes long to import
    from backfill.embedded.users import UserRegister  # noqa: PLC0415  # as above
    from backfill.store.database import create_engine, repeat  # noqa: PLC0415  # as above
    from backfill.store.report import list_job_summaries  # noqa: PLC0415  # as above

    if settings.database.url:
        engine = create_engine(settings.database.url, application_name="backfill", connect_timeout=_PATIENCE)
        found = repeat(engine, lambda tx: list_job_summaries(tx, limit=_JOBS), attempts=1)
    elif UserRegister(settings.core.home / "embedded" / "users.json").living():
        with open_runtime(settings, broker=False) as runtime:
            found = repeat(runtime.engine, lambda tx: list_job_summaries(tx, limit=_JOBS), attempts=1)
    else:
        return []
    return [(job.job_id, job.dag_id, job.state) for job in found]
