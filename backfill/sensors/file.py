"""`FileSensor`: waits for a file on the worker."""

from __future__ import annotations

from collections.abc import Sequence
from glob import iglob
from pathlib import Path
from typing import Any

from backfill.dag.arguments import Context
from backfill.sensors.base import BaseSensorOperator


class FileSensor(BaseSensorOperator):
    """Waits until `filepath` (which may hold `*`, and `**` if `recursive`) is a file, or a folder with a file in it."""

    template_fields: Sequence[str] = ("filepath",)

    def __init__(self, *, filepath: str | Path, recursive: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filepath = str(filepath)
        self.recursive = recursive

    def poke(self, context: Context) -> bool:  # noqa: ARG002  # the base's signature
        """Tell if there is such a file."""
        return any(_has_file(Path(path)) for path in iglob(self.filepath, recursive=self.recursive))  # noqa: PTH207  # patterns may be absolute


def _has_file(path: Path) -> bool:
    return path.is_file() or any(inner.is_file() for inner in path.rglob("*"))
