"""Where each behaviour of semantics.md, section 14, has its test, clause by clause.

A reference is `folder/module::test`, below `tests`, without `test_` and `.py`.
"""

from __future__ import annotations

_JOBS = "integration/jobs/"
_DATES = f"{_JOBS}behaviours_dates::"
_RUNS = f"{_JOBS}behaviours_runs::"
_DEPS = f"{_JOBS}behaviours_dependencies::"
_LIMITS = f"{_JOBS}behaviours_limits::"
_TIME = f"{_JOBS}behaviours_time::"
_ENDS = f"{_JOBS}errors_and_ends::"
_WINDOW = f"{_JOBS}window_and_limits::"
_SUBDAGS = f"{_JOBS}subdags::"
_REAL_SUBDAGS = "acceptance/cli_subdags::"
_EXECUTOR_STATE = f"{_JOBS}executor_state::"
_CONTROL = "acceptance/behaviours_control::"
_EXECUTORS = "acceptance/behaviours_executors::"
_COORDINATOR = "acceptance/lifecycle_coordinator::"
_WORKERS = "acceptance/lifecycle_workers::"
_SERVERS = "acceptance/lifecycle_servers::"
_RULES = "unit/engine/engine_trigger_rules::"
_PROPERTIES = "unit/engine/engine_properties::"
_FIELDS = "conformance/scenario_fields::"
_RANDOM = "conformance/random_scenarios::"
_FLAGS = "unit/cli/cli_run_flags::"
_REAL = (
    "acceptance/airflow_style::dag_files_in_the_style_of_airflow_do_on_celery_workers_what_they_say",
    "acceptance/airflow_style::dag_files_in_the_style_of_airflow_do_in_local_processes_what_they_say",
)

#: In the order of the section: its lines, their clauses, and the tests of each.
SECTION_14: dict[str, dict[str, tuple[str, ...]]] = {
    "Dates": {
        "both ends included": (
            f"{_DATES}both_ends_are_included",
            "unit/authoring/timetables::both_ends_of_the_range_are_included",
        ),
        "hourly": (f"{_DATES}hourly",),
        "cron over a daylight-saving change": (
            f"{_DATES}cron_over_a_daylight_saving_change",
            "unit/authoring/timetables::a_wall_time_that_daylight_saving_leaves_out_has_a_run_all_the_same",
            "unit/authoring/timetables::a_wall_time_that_comes_twice_has_one_run",
            "unit/authoring/timetables::hours_go_on_evenly_over_both_changes_of_the_clocks",
        ),
        "timedelta anchor": (f"{_DATES}a_timedelta_is_anchored_at_the_start",),
        "@once": (f"{_DATES}once_gives_one_run_at_the_start",),
        "None": (f"{_DATES}without_a_schedule_there_is_one_run_if_start_is_end",),
        "date list": (f"{_DATES}a_date_list_gives_its_members_in_range",),
        "before the DAG's start_date": (f"{_DATES}dates_before_the_dags_start_date_are_run",),
        "unfinished interval left out with a note": (f"{_DATES}unfinished_interval_is_left_out_with_a_note",),
        "future date left out with a note": (f"{_DATES}future_date_is_left_out_with_a_note",),
        "date after end_date left out with a note": (f"{_DATES}date_after_end_date_is_left_out_with_a_note",),
        "empty range exits 5": (f"{_DATES}empty_range_exits_5", f"{_CONTROL}exit_code_5_when_refused_or_nothing_to_do"),
        "run_at_least_once gives one run": (
            f"{_DATES}run_at_least_once_gives_one_run",
            f"{_DATES}run_at_least_once_adds_nothing_where_there_are_dates",
            f"{_DATES}run_at_least_once_in_the_future_exits_5",
        ),
        "two dates × several levels: order by level, then date": (
            f"{_JOBS}processing::two_dates_and_levels_go_by_level_and_then_by_date",
        ),
        "run ids": (
            "store/runs::the_run_id_is_that_of_the_keys",
            f"{_JOBS}runs_of_a_job::a_new_run_is_made_as_a_backfill_by_this_job",
        ),
        "backwards strictly descending": (
            f"{_RUNS}backwards_is_strictly_descending",
            f"{_WINDOW}backwards_dates_are_admitted_strictly_descending",
        ),
        "backwards refused with depends_on_past": (
            f"{_JOBS}refusals::backwards_is_refused_where_a_chosen_task_depends_on_the_past_and_names_the_tasks",
        ),
    },
    "Runs": {
        "conf of new runs, of existing ones only when given": (
            f"{_RUNS}conf_is_that_of_new_runs_and_of_existing_ones_only_when_given",
        ),
        "run_id of a reused run": (f"{_RUNS}run_id_of_a_reused_run_stays",),
        "job id on the run": (f"{_RUNS}job_id_is_on_the_run",),
        "cleared run gets a new start_date": (f"{_RUNS}cleared_run_gets_a_new_start_date",),
        "run counted as done untouched, callbacks silent": (
            f"{_RUNS}run_counted_as_done_is_untouched_and_its_callbacks_silent",
            f"{_JOBS}runs_found::a_run_counted_as_done_is_not_touched_and_its_callbacks_stay_silent",
        ),
        "run with a new task re-opened": (f"{_RUNS}run_with_a_new_task_is_re_opened",),
        "the whole reprocess table": (
            f"{_JOBS}runs_found::what_happens_at_a_date_with_a_run",
            f"{_JOBS}runs_found::a_date_without_a_run_gets_one_whatever_reprocess_says",
        ),
        "callbacks once per finish": (f"{_RUNS}callbacks_fire_once_per_finish",),
        "running non-backfill run refused, TIs untouched": (
            f"{_RUNS}running_non_backfill_run_is_refused_and_its_task_instances_untouched",
        ),
        "overlapping jobs refused, disjoint ones both succeed": (
            f"{_DATES}overlapping_jobs_are_refused_and_disjoint_ones_both_succeed",
        ),
        "adjoining ones keep past order": (f"{_WINDOW}adjoining_jobs_keep_the_order_of_the_past",),
        "window: a slow run does not hold up the next date": (
            f"{_WINDOW}a_run_that_finishes_frees_its_place_for_the_next_date_while_a_slow_one_runs_on",
        ),
        "never above max_active_runs": (f"{_WINDOW}never_more_runs_are_active_than_allowed",),
        "with a foreign running run": (f"{_WINDOW}a_foreign_running_run_takes_a_place_until_it_ends",),
        "with two coordinators": (
            f"{_WINDOW}two_jobs_of_one_dag_share_max_active_tasks_and_max_active_runs",
            "store/races::the_second_of_two_jobs_counts_the_runs_of_the_first",
        ),
    },
    "States": {
        "every row of section 3 and that nothing else can be written": (
            "store/guards::a_statement_writes_from_the_states_of_its_rule_and_from_no_other",
            "store/guards::a_clear_starts_from_every_state_but_removed_and_running_until_the_process_is_gone",
            "store/guards::nothing_is_written_for_an_attempt_that_is_not_current",
            "store/guards::dependencies_settle_nothing_else",
            "store/guards::orphans_are_what_is_scheduled_or_queued",
            "store/claim::only_a_queued_task_instance_can_be_claimed",
            "store/finish::only_a_running_attempt_can_finish",
            "store/finish::the_ends_are_those_of_the_transition_table",
            "store/heartbeat_and_hand_back::only_a_running_attempt_is_touched",
            "store/fail_stop::the_rest_of_the_run_is_skipped_and_what_runs_fails",
            "store/expansion::whatever_rows_there_are",
        ),
        "counters for every state, with changed try numbers": (
            f"{_JOBS}update_counters::there_is_a_bucket_for_every_state",
            f"{_JOBS}update_counters::a_running_one_goes_where_its_row_says_also_with_another_try_number",
            "unit/jobs/task_status::each_key_is_in_exactly_one_bucket_whatever_states_it_passes_and_whatever_its_try",
        ),
        "fill in the blanks: one TI per state in one run": (
            f"{_DEPS}fill_in_the_blanks_with_one_task_instance_per_state",
        ),
        "each trigger rule × each multiset of upstream states in every order of arrival": (
            f"{_RULES}the_table_says_what_a_second_reading_of_it_says",
            f"{_RULES}every_order_of_arrival_gives_the_same",
        ),
        "skip before failure equals failure before skip": (
            f"{_DEPS}skip_before_failure_equals_failure_before_skip",
            f"{_RULES}a_failure_beats_a_skip_whichever_comes_first",
        ),
        "skip chain of 100": (
            f"{_DEPS}a_skip_chain_of_100_settles_in_one_pass",
            f"{_DEPS}a_skip_chain_of_100_is_no_deadlock",
        ),
        "branch, nested, empty, with join": (
            f"{_DEPS}branches_in_branches_with_a_join",
            f"{_DEPS}branch_that_follows_nothing_skips_all",
            f"{_DEPS}branch_to_a_group_goes_on_with_its_roots",
        ),
        "short circuit in both settings": (f"{_DEPS}short_circuit_in_both_settings",),
        "decision kept after clear": (f"{_DEPS}decision_is_kept_after_a_clear_of_the_child",),
        "mapped child of a branch": (f"{_DEPS}mapped_child_of_a_branch_is_skipped_with_all_indexes",),
        "effective leaves: failed inner task under an all_done leaf": (
            f"{_DEPS}failed_inner_task_under_an_all_done_leaf_makes_a_good_run_and_exit_code_1",
        ),
        "ignorable and fatal teardown": (f"{_DEPS}ignorable_and_fatal_teardown",),
        "setup failed, skipped": (f"{_DEPS}setup_failed_or_skipped_settles_its_work_and_its_teardown",),
        "depends_on_past: no previous run": (f"{_DEPS}depends_on_past_without_a_previous_run_starts",),
        "depends_on_past: failed one": (f"{_DEPS}depends_on_past_waits_for_a_good_end_of_the_previous_run",),
        "depends_on_past: missing TI": (
            f"{_DEPS}depends_on_past_with_a_missing_task_instance_passes_for_a_task_that_is_new",
            f"{_DEPS}depends_on_past_with_a_missing_task_instance_blocks_a_task_that_was_seen_before",
        ),
        "unaligned start with and without ignore_first": (f"{_DEPS}unaligned_start_with_and_without_ignore_first",),
        "wait_for_downstream": (f"{_DEPS}wait_for_downstream_waits_for_direct_children_in_the_previous_run",),
        "mapping: literal, XCom, product": (f"{_DEPS}mapping_over_a_literal_and_an_xcom_and_their_product",),
        "mapping: zip": (
            f"{_DEPS}mapping_over_a_zip_is_as_long_as_the_shortest",
            f"{_DEPS}mapping_over_a_zip_with_fill_value_is_as_long_as_the_longest",
        ),
        "mapping: length 0": (f"{_DEPS}mapping_of_length_0_is_skipped_when_its_rule_lets_it_run",),
        "source failed or skipped under all_done": (
            f"{_DEPS}source_failed_or_skipped_settles_a_mapping_under_all_done",
        ),
        "index shrinks and grows on rerun": (f"{_DEPS}index_shrinks_and_grows_on_rerun",),
        "mapped group": (f"{_DEPS}mapped_group_runs_index_by_index",),
        "removed task ignored, then restored": (f"{_DEPS}removed_task_is_ignored_then_restored",),
        "subset leaves other TIs alone": (
            f"{_DEPS}subset_leaves_other_task_instances_alone",
            f"{_TIME}dagrun_timeout_of_a_subset_leaves_other_tasks_alone",
            f"{_TIME}fail_stop_of_a_subset_leaves_other_tasks_alone",
        ),
        "regex that matches nothing refused": (
            "unit/authoring/subset::a_regex_that_matches_nothing_names_the_tasks",
            f"{_CONTROL}exit_code_2_for_wrong_use_names_the_value",
        ),
        "DAG without tasks ends at once": (f"{_RUNS}dag_without_tasks_ends_at_once",),
    },
    "Limits": {
        "default and own pool, pool_slots > 1, task limits": (f"{_LIMITS}no_limit_is_exceeded_at_any_instant",),
        "--pool": (f"{_LIMITS}pool_of_the_job_counts_and_pool_slots_stay",),
        "closed pool": (
            f"{_LIMITS}closed_pool_is_waited_for_until_it_opens",
            f"{_FIELDS}a_job_that_would_wait_for_a_closed_pool_for_ever_is_cancelled",
        ),
        "unknown pool": (f"{_JOBS}refusals::a_pool_that_a_chosen_task_names_must_exist",),
        "deleted pool": (f"{_LIMITS}deleted_pool_blocks_what_names_it_and_nothing_else",),
        "task limits per dag and per run": (
            f"{_LIMITS}limit_per_dag_counts_all_runs_and_limit_per_run_its_own",
            f"{_LIMITS}limit_per_run_holds_for_each_run",
        ),
        "80 mapped TIs": (f"{_LIMITS}80_mapped_task_instances_keep_within_their_limit",),
        "none exceeded at any instant": (
            f"{_LIMITS}no_limit_is_exceeded_at_any_instant",
            "store/races::a_pool_is_never_overbooked",
        ),
        "a full pool or task limit delays no other task": (f"{_LIMITS}full_pool_or_task_limit_delays_no_other_task",),
        "two jobs on one pool": (f"{_WINDOW}a_pool_of_one_slot_serves_two_jobs_and_is_never_exceeded",),
        "priority over date over topology over index": (
            "unit/engine/engine_dispatch::priority_goes_before_date_before_topology_before_index",
        ),
    },
    "Time": {
        "intermittent failure succeeds, constant one fails": (
            f"{_TIME}intermittent_failure_succeeds_and_a_constant_one_fails",
        ),
        "exact backoff for known inputs": ("unit/engine/engine_retries::exact_delays_for_known_inputs",),
        "disable_retry on and off with a real executor": (
            f"{_EXECUTORS}disable_retry_on_and_off_with_a_real_executor",
        ),
        "execution_timeout": ("integration/workers/worker_stops::execution_timeout_ends_the_task", *_REAL),
        "dagrun_timeout": (f"{_TIME}dagrun_timeout_skips_what_is_unfinished_and_fails_the_run", *_REAL),
        "fail_stop": (
            f"{_TIME}fail_stop_skips_the_rest_of_the_run_but_teardowns",
            "integration/workers/worker_runner::fail_stop_ends_the_rest_of_the_run",
        ),
        "FailTask": (f"{_TIME}fail_task_is_not_retried",),
        "sensor in both modes over several reschedules, soft_fail": (
            *_REAL,
            "unit/authoring/sensors::soft_fail_turns_the_sensors_timeout_into_a_skip",
            "unit/authoring/sensors::soft_fail_turns_an_execution_timeout_and_fail_task_into_a_skip",
        ),
        "reschedule then retry": (f"{_TIME}sensor_over_several_reschedules_then_a_retry_stays_within_its_tries",),
        "rerun_failed_tasks for failed and upstream_failed": (
            f"{_JOBS}runs_found::rerun_failed_tasks_clears_what_ended_badly_and_leaves_the_rest",
        ),
        "failing again ends the job, no endless loop": (f"{_TIME}rerun_failed_tasks_that_fail_again_end_the_job",),
    },
    "Events": {
        "executor says failed or success for a root and an inner task while the row is queued, running": (
            f"{_EXECUTOR_STATE}what_is_over_for_the_executor_but_not_by_its_row_is_tried_again_at_a_root_and_at_an_inner_task",
        ),
        "stale event": (
            f"{_EXECUTOR_STATE}an_event_of_another_attempt_changes_nothing_and_costs_no_query",
            f"{_EXECUTOR_STATE}an_event_of_an_attempt_that_the_row_has_no_longer_is_stale",
            f"{_TIME}late_word_of_an_attempt_that_was_cleared_by_hand_changes_nothing",
        ),
        "event before the commit": (
            f"{_EXECUTOR_STATE}an_event_that_comes_before_the_commit_of_its_row_harms_nothing",
        ),
        "worker killed in a task": (f"{_WORKERS}what_a_killed_process_of_a_worker_ran_is_run_again_at_once",),
        "whole worker gone": (f"{_WORKERS}what_a_killed_worker_ran_is_run_again_by_another",),
        "budget used up": (
            f"{_WORKERS}a_task_that_ends_its_process_each_time_fails_and_the_rest_goes_on",
            f"{_EXECUTOR_STATE}a_lost_attempt_beyond_the_budget_is_an_ordinary_failure",
        ),
        "message redelivered": ("integration/workers/worker_runner::a_message_that_comes_twice_runs_once",),
        "message lost": (f"{_SERVERS}a_broker_that_forgets_everything_costs_only_time",),
        "message of a cancelled job": (
            "store/claim::an_attempt_that_was_taken_back_cannot_be_claimed",
            "acceptance/lifecycle_control::a_cancel_stops_what_runs_takes_back_what_waits_and_settles_all",
        ),
        "worker cut off from the database": (
            "integration/workers/worker_celery::a_process_that_cannot_renew_its_heartbeat_is_killed",
        ),
        "orphan reset: with and without run": (
            f"{_JOBS}orphans::with_a_run_only_that_run_is_looked_at",
            f"{_JOBS}orphans::only_what_is_scheduled_or_queued_is_reset_in_runs_of_every_type",
        ),
        "orphan reset: finished run and live lease untouched": (
            f"{_JOBS}orphans::runs_that_are_not_running_are_left_alone",
            f"{_JOBS}orphans::what_another_job_with_a_live_lease_drives_is_not_touched",
            f"{_JOBS}orphans::what_another_job_with_a_live_lease_queued_elsewhere_is_not_touched",
        ),
        "orphan reset: number returned": (f"{_JOBS}orphans::without_orphans_the_number_is_zero",),
        "coordinator killed at each step, then resume: each TI once": (
            f"{_COORDINATOR}a_coordinator_that_is_killed_again_and_again_runs_nothing_twice",
        ),
        "running ones adopted": (f"{_COORDINATOR}after_a_crash_resume_waits_for_the_lease_and_adopts_what_runs",),
        "two coordinators at once": (f"{_COORDINATOR}of_two_coordinators_one_drives_and_the_other_takes_over",),
        "lost lease": (f"{_COORDINATOR}a_frozen_coordinator_that_wakes_up_writes_nothing_and_says_so",),
        "database or broker away for seconds": (
            f"{_SERVERS}a_broker_that_is_killed_and_comes_back_empty_costs_only_time",
            f"{_SERVERS}a_database_that_is_killed_and_comes_back_costs_only_time",
        ),
        "database or broker away for minutes": (
            f"{_SERVERS}a_coordinator_outlives_a_database_that_is_away_for_longer_than_its_lease",
            "integration/workers/worker_events::events_wait_for_a_broker_that_is_away_and_that_is_said_once",
            "unit/jobs/pace::a_broker_that_is_away_is_asked_again_after_growing_pauses_until_it_answers",
        ),
        "TI cleared, failed, succeeded by hand while queued, running": (
            f"{_TIME}task_instance_cleared_or_ended_by_hand_while_in_flight",
        ),
        "TI cleared, failed, succeeded by hand while finished": (
            f"{_TIME}task_instance_cleared_or_ended_otherwise_by_hand_when_finished",
        ),
    },
    "Control": {
        "pause, resume, cancel in every job state": (
            f"{_CONTROL}pause_in_every_job_state",
            f"{_CONTROL}resume_without_a_holder_drives_the_job",
            f"{_CONTROL}resume_with_a_live_holder_leaves_the_job_to_it",
            f"{_CONTROL}resume_of_a_job_that_has_ended_is_refused",
            f"{_CONTROL}cancel_in_every_job_state",
        ),
        "one and two interrupts": (
            f"{_COORDINATOR}an_interrupt_pauses_the_job_and_leaves_remote_tasks_alone",
            f"{_COORDINATOR}an_interrupt_stops_local_tasks_and_they_cost_nothing",
            f"{_COORDINATOR}a_second_interrupt_ends_the_command_at_once",
        ),
        "every exit code": (
            f"{_CONTROL}exit_code_0_when_every_task_instance_ended_well",
            f"{_CONTROL}exit_code_1_when_some_failed_also_under_continue_on_failures",
            f"{_CONTROL}exit_code_2_for_wrong_use_names_the_value",
            f"{_CONTROL}exit_code_3_when_work_is_left_that_can_never_run",
            f"{_CONTROL}exit_code_4_of_a_job_that_was_cancelled",
            f"{_CONTROL}exit_code_5_when_refused_or_nothing_to_do",
            f"{_CONTROL}exit_code_69_when_the_database_is_not_reachable",
            f"{_CONTROL}exit_code_75_when_another_coordinator_holds_the_job",
            f"{_COORDINATOR}an_interrupt_pauses_the_job_and_leaves_remote_tasks_alone",
        ),
        "JSON shapes": (f"{_CONTROL}json_shape_of_run_and_status", f"{_CONTROL}json_shape_of_tasks"),
        "default stop": (
            f"{_ENDS}by_default_no_date_is_admitted_after_a_failure",
            f"{_ENDS}by_default_runs_in_the_window_go_on_to_their_end",
        ),
        "continue_on_failures": (f"{_ENDS}with_continue_on_failures_every_date_has_its_turn_and_the_job_has_failed",),
        "max_failures N and N%": (
            f"{_ENDS}max_failures_stops_after_so_many_failed_task_instances",
            f"{_ENDS}once_max_failures_is_reached_nothing_more_is_sent",
        ),
        "each deadlock reason": (
            f"{_LIMITS}past_that_ended_badly_is_unfinished_or_missing_is_named",
            f"{_LIMITS}deleted_pool_blocks_what_names_it_and_nothing_else",
            f"{_LIMITS}pool_that_has_become_too_small_blocks_what_takes_more",
            "unit/engine/engine_why::blocked_task_instances_say_what_they_wait_for",
        ),
        "hint only for the first run": (f"{_LIMITS}hint_is_given_only_for_the_first_run",),
        "stuck run leaves the window": (f"{_LIMITS}stuck_run_leaves_the_window",),
        "progress adds up at any time": (
            f"{_WINDOW}progress_adds_up_at_any_time",
            f"{_WINDOW}progress_adds_up_where_a_run_is_stuck",
        ),
        "report sorted": (f"{_ENDS}errors_come_by_date_then_topology_then_index_whatever_their_names",),
        "map index column right": ("unit/cli/cli_summary::the_map_index_has_a_column_only_where_there_is_one",),
        "unfinished runs closed as failed, complete ones as success": (
            f"{_ENDS}an_unfinished_run_is_closed_as_failed_and_what_waits_in_it_waits_no_more",
            f"{_ENDS}a_run_that_is_complete_ends_as_its_task_instances_say",
        ),
    },
    "Flags": {
        "each alone": (f"{_FLAGS}each_flag_alone_changes_what_it_names",),
        "the CLI's defaults": (f"{_FLAGS}the_defaults_are_those_of_the_flags_one_by_one",),
        "'no' to reset": (f"{_FLAGS}no_to_a_reset_stops_the_command", f"{_JOBS}resets::no_changes_nothing"),
        "unknown executor": (f"{_JOBS}refusals::an_executor_that_a_chosen_task_names_must_exist",),
        "tasks routed to several executors": (f"{_EXECUTORS}tasks_are_routed_to_several_executors",),
        "several DAGs by regex": (
            "acceptance/cli_several_dags::jobs_of_matching_dags_follow_one_another_with_workers_of_the_commands_own",
            "acceptance/cli_several_dags::a_job_that_fails_stops_the_rest_unless_told_to_go_on",
        ),
    },
    "Real runs": {
        "branch, mapping, sensor, setup/teardown, XCom, templates, params on LocalExecutor and Celery": _REAL,
        "subdag alone and in its parent": (
            f"{_REAL_SUBDAGS}a_subdag_as_target_runs_by_itself",
            f"{_REAL_SUBDAGS}local_processes_run_the_tasks_of_subdags",
            f"{_REAL_SUBDAGS}celery_workers_run_the_tasks_of_subdags",
            f"{_REAL_SUBDAGS}a_coordinator_that_is_killed_while_a_subdag_runs_is_followed_by_another",
            f"{_SUBDAGS}a_subdag_as_target_runs_by_itself_on_the_dates_of_its_parent",
            f"{_SUBDAGS}a_subdag_runs_when_the_dependencies_of_its_task_are_met_and_the_task_ends_with_it",
            f"{_SUBDAGS}subdags_of_subdags_work_alike",
            f"{_SUBDAGS}its_task_fails_with_its_run_and_says_what_ended_badly",
            f"{_JOBS}subdags_cut_short::a_blocked_task_of_a_subdag_blocks_the_run_above",
            f"{_JOBS}subdags_cleared::a_clear_of_a_dag_clears_its_subdags",
            f"{_JOBS}subdags_planned::the_tasks_of_subdags_stand_behind_those_of_the_dag",
        ),
    },
    "Random": {
        "limits hold": (f"{_PROPERTIES}no_limit_is_ever_exceeded",),
        "no task starts before its upstreams allow it": (
            f"{_PROPERTIES}no_task_starts_before_its_upstreams_allow_it",
            f"{_PROPERTIES}what_is_kept_up_step_by_step_equals_a_naive_reading_of_the_rules",
        ),
        "buckets stay disjoint and complete": (
            "unit/jobs/task_status::each_key_is_in_exactly_one_bucket_whatever_states_it_passes_and_whatever_its_try",
        ),
        "every TI ends": (f"{_PROPERTIES}every_task_instance_ends_or_is_blocked",),
        "none runs twice at once": (f"{_COORDINATOR}a_coordinator_that_is_killed_again_and_again_runs_nothing_twice",),
        "final states equal a sequential reference": (
            f"{_RANDOM}final_states_equal_a_sequential_reference",
            f"{_RANDOM}final_states_do_not_depend_on_window_limits_or_priorities",
            f"{_PROPERTIES}final_states_do_not_depend_on_the_order_of_events",
        ),
        "a year of daily and of hourly runs: the cost of a pass grows with what changed": (
            f"{_LIMITS}the_cost_of_a_pass_grows_with_what_changed_not_with_the_range",
        ),
    },
}
