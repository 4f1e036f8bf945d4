"""The engine: what may run when. Pure, in memory, deterministic; it knows no database, no clock and no executor.

`Graph` compiles a DAG once: tasks become numbers in topological order, relations become tuples of numbers. `Window` holds
the runs that are under way. Each run is a few arrays with a slot for each task instance. A change of one task instance
costs O(out-degree): it moves the counts that trigger rules look at, and notes what has to be judged again. `decide` judges
just that, until nothing changes, so that a pass costs what has changed and not what there is.

Inside of the window, `Intake` turns rows into changes on the `Board`, the board passes each change on, `Decider` has the
`Judge` answer for what is to be judged, and carries the verdicts out.

The rules stand one by one: trigger rules in `rules`, the lines of S4.1 in `lines`, the run before in `past`, mapped groups
in `kinship`, weights, setups, skips and leaves in `relations`, limits in `limits`, the order of dispatch in `ready`, the
end of a run in `outcome`, blocked work in `blocked`, and reasons for people in `reasons`.
"""
