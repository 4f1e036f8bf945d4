"""Real PostgreSQL and Valkey from the wheels of the `embedded` extra, for one machine and no set-up.

How it holds together:

- **One home, one pair of servers.** Everything is in `core.home/embedded`: the servers' data, their logs, the register of
  users. Every command that needs a server adds itself to the register (`users.py`), and the last that leaves stops the
  servers. One lock file serialises coming and going.
- **The kernel says what lives.** Each server holds a lock on a file for as long as any of its processes exists
  (`server.py`), so neither a pid file that a `kill -9` left behind nor a pid that was given out again can deceive.
  A user is known by its pid together with the time at which that process was born (`processes.py`).
- **Sockets only, for one user.** The sockets are in a folder of their own with a short path and mode 0700; the databases admit
  only the operating-system user that started them (`peer`), and no password exists.
- **Never as root.** PostgreSQL refuses to run as root, so there both servers run as an unprivileged user (`accounts.py`). Where
  that user cannot reach the home or the programs, data and programs are kept in `/var/lib/backfill` (`places.py`,
  `programs.py`), tied to the home by a link.
- **Their own session.** The servers neither see the terminal's Ctrl-C nor hold the pipes of the command that started them.

A home serves one machine at a time: do not share it between machines over a network file system.
"""

from backfill.embedded.servers import Endpoints, Servers

__all__ = ["Endpoints", "Servers"]
