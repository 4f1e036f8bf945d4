"""Every SQL statement of the running system, one function per statement, set-based.

Each function takes a transaction (`Tx`) first and never commits. A write is guarded by the state (and attempt) that it
starts from, with the guard in its name: `finish_runs_if_running`. That it writes nothing is a normal answer, not an error: the
caller reads again (S0.2). Times are the database's.

**Locks.** All statements take row locks in one order, so that two of them can never wait for each other:

    job  →  dag (by dag_id)  →  slot_pool (by name)  →  job_run_date  →  dag_run (by id)  →  task_instance (by id)
         →  task_attempt, xcom

A statement for many rows therefore first locks them in this order, in a CTE with `order by … for no key update`, and then
updates what it has locked; the lock also makes the guard hold to the end of the transaction. Foreign keys lock upwards
(`for key share`), which no lock here conflicts with.

**Tries** (S6.1). `try_number` counts tries, `try_open` says that the present one has begun and no attempt has ended it. Opened by
`task_instances.queue_if_idle` alone (which adds one unless it is open). Left open by `task_instances.take_back_if_queued` (S3.8),
`recovery.lose_if_current` (S3.15), `recovery.reset_orphans` (S8.5), `attempts.hand_back_if_running` and `claims.unclaim_if_running`
(S3.15), a finish as `up_for_reschedule` in `attempts.finish_if_current` (S3.13), and by `schedule_if_idle` and `unschedule_if_scheduled`
(S3.2, S3.3), which are no part of a try. Every other write of a state closes it; `task_instances.settle_if_idle` counts one try for `success` (S3.6).
"""
