"""The worker: a Celery app whose one task runs attempts, and the same for processes that the local executor starts.

```
app         the Celery app, every setting with its reason     lifecycle   what happens when a worker and its children start and end
tasks       the Celery task                                   shutdown    how a worker stops: let tasks end, then hand them back
queues      which queues it listens to                        transport   what comes out of them: checked by `envelope`
presence    "I am here", in Redis                             lost        what is reported of a child that died, by its `marks`
local       a worker process of the local executor            events      what coordinators are told, in Redis streams
runner      bundles: claim, run, conclude, one by one         ledger      what is written, and the events after each commit
open_bundle where each attempt of a bundle is: chunks         control     the order to look at rows at once
attempt     log, heartbeat, signals around one attempt        execution   DAG (`dags`), context, execute, callbacks
outcome     how a task ended    conclusion  what that means for the row     results  what it returned, as XComs
heartbeat   proves that attempts live    deadman  kills the process if that fails    interruption  stops a running task
context     what templates and tasks see: `task_instance`, `macros`, `variables`, `connections`
logs        one file per try, at `log_paths`, without secrets (`masking`, `secret_values`)
surroundings  what a task changes about its process, put back after each attempt
preview     template fields of a run that is not there yet, for a dry run
```

`celery -A workers worker` finds the app as `workers.celery`. Nothing here imports Celery before that is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["celery"]


def __getattr__(name: str) -> Any:
    # the log's paths and the local executor's processes do without Celery, which takes a third of a second to import
    if name != "celery":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("workers.app").app
