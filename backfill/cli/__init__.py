"""The command line: one module per command group, loaded when its command is used.

`main` is the entry point and the policy for everything that ends a command; `lazy` loads commands on demand; `flags` and
`parameters` are what is typed, `output` and `terminal` what is printed, `progress` and `summary` what is said of a job.
"""
