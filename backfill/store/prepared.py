"""Statements that are sent again and again are planned once by each connection (PREPARE).

To read and plan one of ours takes PostgreSQL several times as long as to carry it out for a few rows. Nothing relies on it: where a
pooler gives each transaction another session (pgbouncer in transaction mode), the first statement that is missing there, or there
already, turns preparing off for the rest of the process, and its transaction is repeated as a whole (`repeat`).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext

logger = logging.getLogger(__name__)

#: Name of the execution option.
IS_REPEATED = "backfill_repeated"
#: Execution options of statements whose text is always the same, with values as parameters; and of those of them whose plan must know
#: how large the tables are: made when these were empty, it would read them from end to end later.
REPEATED = {IS_REPEATED: True}
PLANNED_EACH_TIME = {IS_REPEATED: False}

#: Where a connection remembers what it has sent: by statement what to send instead, None after the first time.
_SENT = "backfill_sent"
_NAME = "backfill_"
#: SQLSTATEs that say that the session is not the one that the statement was prepared in, or that the plan does not fit any more.
UNUSABLE = frozenset(
    {
        "26000",  # no such statement here
        "42P05",  # it is here already
        "0A000",  # a migration has changed the type of a column that it returns
    }
)
_CAST = re.compile(r"cast\(%\((\w+)\)s as ([\w\[\]]+)\)", re.IGNORECASE)
_PARAMETER = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class _Prepared:
    #: Makes the session know the statement.
    prepare: str
    #: Is sent in its place from then on, with the same parameters.
    execute: str


class Preparing:
    """Prepares what the connections of one engine send repeatedly, as long as their sessions remember it."""

    def __init__(self) -> None:
        self.is_usable = True

    def replace(self, statement: str, info: dict[Any, Any], send: Callable[[str], object]) -> str:
        """Return what is sent in place of `statement`: itself for the first time, so that nothing is prepared for one use.

        `info` is what is remembered of the connection, by which `send` sends.
        """
        if not self.is_usable:
            return statement
        sent: dict[str, str | None] = info.setdefault(_SENT, {})
        if statement not in sent:
            sent[statement] = None
            return statement
        execute = sent[statement]
        if execute is None:
            prepared = _prepared(statement)
            send(prepared.prepare)
            sent[statement] = execute = prepared.execute
        return execute

    def note(self, error: BaseException | None, statement: str | None) -> None:
        """Prepare nothing more if that is what an error says about `statement`."""
        code = getattr(error, "pgcode", None)
        if self.is_usable and code in UNUSABLE and _NAME in (statement or ""):
            self.is_usable = False
            logger.info("Statements are sent in full from now on, sessions do not keep them (%s)", code)


_BY_ENGINE: WeakKeyDictionary[Engine, Preparing] = WeakKeyDictionary()


def preparing(engine: Engine) -> Preparing:
    """Return what prepares for `engine`."""
    return _BY_ENGINE[engine]


def prepare_repeated(engine: Engine) -> None:
    """Have the connections of `engine` prepare the statements that are `REPEATED`."""
    own = _BY_ENGINE[engine] = Preparing()

    def before_execute(
        connection: Connection,
        _cursor: object,
        statement: str,
        parameters: Mapping[str, Any],
        context: Any,
        executemany: bool,
    ) -> tuple[str, Mapping[str, Any]]:
        if executemany or not context.execution_options.get(IS_REPEATED):
            return statement, parameters
        return own.replace(statement, connection.info, connection.exec_driver_sql), parameters

    def on_error(context: ExceptionContext) -> None:
        own.note(context.original_exception, context.statement)

    event.listen(engine, "before_cursor_execute", before_execute, retval=True)
    event.listen(engine, "handle_error", on_error)


@cache
def _prepared(statement: str) -> _Prepared:
    """Return how to prepare `statement`; its name tells it from those of other versions, which may meet it behind a pooler."""
    name = _NAME + hashlib.sha256(statement.encode()).hexdigest()[:16]
    types = dict(_CAST.findall(statement))
    numbers = {
        parameter: f"${number}" for number, parameter in enumerate(dict.fromkeys(_PARAMETER.findall(statement)), 1)
    }
    # what has no cast gets its type from where it stands, as in the full statement
    signature = ", ".join(types.get(parameter, "unknown") for parameter in numbers)
    given = ", ".join(
        f"cast(%({parameter})s as {types[parameter]})" if parameter in types else f"%({parameter})s"
        for parameter in numbers
    )
    listed = f" ({signature})" if numbers else ""
    return _Prepared(
        prepare=f"prepare {name}{listed} as {_PARAMETER.sub(lambda found: numbers[found[1]], statement)}",
        execute=f"execute {name}({given})" if numbers else f"execute {name}",
    )
