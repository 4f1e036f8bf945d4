"""`BashOperator`: runs a command in bash."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

from backfill.dag.arguments import Context, OperatorArguments
from backfill.dag.base_operator import BaseOperator
from backfill.dag.calling import call_with_context
from backfill.dag.xcom_arg import XComArg
from backfill.exceptions import BackfillError, DagError, SkipTask
from backfill.operators.process_group import ProcessGroup


class BashOperator(BaseOperator):
    """Runs `bash_command`; each line of its output is logged, the last one is returned.

    `env` replaces the environment (but for `AIRFLOW_CTX_…`), with `append_env` it is added. Exit codes in `skip_on_exit_code`
    skip the task, others than 0 fail it. Without `cwd` the command runs in a temporary folder.
    """

    template_fields: Sequence[str] = ("bash_command", "env", "cwd")
    template_fields_renderers = {"bash_command": "bash", "env": "json"}  # noqa: RUF012  # as in Airflow
    template_ext: Sequence[str] = (".sh", ".bash")
    ui_color = "#f0ede4"

    def __init__(
        self,
        *,
        bash_command: str | XComArg,
        env: Mapping[str, Any] | None = None,
        append_env: bool = False,
        output_encoding: str = "utf-8",
        skip_on_exit_code: int | Container[int] | None = 99,
        cwd: str | XComArg | None = None,
        output_processor: Callable[[str], Any] | None = None,
        **kwargs: Unpack[OperatorArguments],
    ) -> None:
        super().__init__(**kwargs)
        #: Template fields hold a template or a reference until they are rendered.
        self.bash_command: Any = bash_command
        self.env: Any = env
        self.append_env = append_env
        self.output_encoding = output_encoding
        self.skip_on_exit_code = (skip_on_exit_code,) if isinstance(skip_on_exit_code, int) else skip_on_exit_code or ()
        self.cwd: Any = cwd
        self.output_processor = output_processor
        self._process: ProcessGroup | None = None

    def execute(self, context: Context) -> Any:  # noqa: ARG002  # the base's signature
        """Run the command to its end."""
        if not isinstance(self.bash_command, str) or not self.bash_command.strip():
            raise DagError(
                f"The task {self.task_id!r} has bash_command={self.bash_command!r}; it takes a command as text."
            )
        with TemporaryDirectory(prefix="backfill-") as folder:
            last_line = self._run(self._existing_folder() if self.cwd is not None else folder)
        return last_line if self.output_processor is None else self.output_processor(last_line)

    def on_kill(self) -> None:
        """End the command and everything that it has started."""
        if self._process is not None:
            self._process.end()

    def _run(self, folder: str) -> str:
        last_line = ""
        with ProcessGroup(["bash", "-c", self.bash_command], cwd=folder, env=self._environment()) as process:
            self._process = process
            for raw in process.output:
                last_line = raw.decode(self.output_encoding, errors="backslashreplace").rstrip()
                self.log.info("%s", last_line)
            self._judge(process.wait(), last_line)
        return last_line

    def _judge(self, exit_code: int, last_line: str) -> None:
        if exit_code in self.skip_on_exit_code:
            raise SkipTask(f"The command ended with exit code {exit_code}, which skips the task.")
        if exit_code != 0:
            said = f"; it last said: {last_line}" if last_line else ""
            raise BackfillError(f"The command of the task {self.task_id!r} ended with exit code {exit_code}{said}")

    def _environment(self) -> dict[str, str]:
        if self.env is None or self.append_env:
            return {**os.environ, **(self.env or {})}
        return {**{name: os.environ[name] for name in os.environ if name.startswith("AIRFLOW_CTX_")}, **self.env}

    def _existing_folder(self) -> str:
        if not Path(self.cwd).is_dir():
            raise BackfillError(f"The task {self.task_id!r} has cwd={self.cwd!r}, which is no folder on this worker.")
        return str(self.cwd)


class BashCommandOperator(BashOperator):
    """Calls a function and runs the command that it returns, which is rendered first: what `@task.bash` makes."""

    template_fields: Sequence[str] = ("env", "cwd", "op_args", "op_kwargs")

    def __init__(
        self,
        *,
        python_callable: Callable[..., str],
        op_args: Any = None,
        op_kwargs: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(bash_command="", **kwargs)
        self.python_callable = python_callable
        self.op_args = op_args if op_args is not None else []
        self.op_kwargs = op_kwargs if op_kwargs is not None else {}

    def execute(self, context: Context) -> Any:
        """Ask the function for the command and run it."""
        self.bash_command = call_with_context(self.python_callable, list(self.op_args), self.op_kwargs, context)
        self.render_field("bash_command", context)
        return super().execute(context)
