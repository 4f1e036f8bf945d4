"""Runs one attempt by a `LocalExecutor` until it is killed: what a coordinator is to its local processes."""

import json
import sys
from datetime import UTC, datetime

from stage import a_context

from backfill.config import load_settings
from backfill.executors import LocalExecutor, QueuedAttempt
from backfill.keys import TaskInstanceKey
from backfill.messages import Attempt

job_id, pickle_hash, (task_instance_id, key, attempt_id, try_number) = json.loads(sys.argv[1])
executor = LocalExecutor()
executor.start(a_context(load_settings(), job_id, pickle_hash))
attempt = Attempt(task_instance_id, TaskInstanceKey(*key), attempt_id, try_number)
executor.queue_task_instances([QueuedAttempt(attempt, "backfill", datetime.now(UTC))])
executor.wait()
