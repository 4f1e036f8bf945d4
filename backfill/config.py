"""Settings: defaults, then a TOML file, then environment variables, then flags (interface.md, section 4).

`Settings` is frozen and passed from the composition root down; nothing reads the environment behind its back.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

from backfill.exceptions import ConfigError

#: Keys whose value is never shown and may come from a file named by `…_FILE`.
SECRETS = frozenset({"core.secret_key", "database.url", "celery.broker_url", "flower.password"})


@dataclass(frozen=True, slots=True)
class CoreSettings:
    """What every part needs."""

    #: Folder of the embedded servers' data, of logs and of the generated secret key.
    home: Path = field(default_factory=lambda: Path("~/.backfill").expanduser())
    #: Folder in which DAGs are looked up by their id.
    dags_folder: Path = Path("dags")
    #: Task instances in flight per coordinator; 0 is no limit.
    parallelism: int = 0
    #: Slots of `default_pool` when the schema is made.
    default_pool_slots: int = 128
    #: Signs shipped DAGs; empty: made at first use in `home`, mode 0600.
    secret_key: str = ""


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """Where the truth lives."""

    #: Empty: embedded PostgreSQL in `core.home`.
    url: str = ""
    #: Seconds to wait for a connection before the server counts as not answering.
    connect_timeout: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class CelerySettings:
    """The way to the workers."""

    #: Empty: embedded Valkey in `core.home`.
    broker_url: str = ""
    #: Queue of task instances whose task names none, and queue that workers listen to.
    queue: str = "backfill"
    #: Show `dag.task` as the task's name in Flower; it becomes a Prometheus label there, one for each task.
    readable_names: bool = True


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """One Celery worker."""

    #: Child processes; 0: number of cores.
    concurrency: int = 0
    #: How long a worker that was told to stop lets its tasks run on before it hands them back.
    soft_shutdown_timeout: timedelta = timedelta(seconds=30)
    #: Folder of the task logs; empty: `logs` in `core.home`.
    log_folder: str = ""


@dataclass(frozen=True, slots=True)
class CoordinatorSettings:
    """The process that drives jobs."""

    #: A lease not renewed for six of these has run out (S1.4).
    heartbeat_interval: timedelta = timedelta(seconds=5)
    #: Address of the coordinator's Prometheus page; it asks for no login.
    metrics_address: str = "127.0.0.1"
    #: Port of that page; 0: none.
    metrics_port: int = 0


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """Task instances in flight."""

    #: A worker renews the heartbeat of what it runs this often.
    heartbeat_interval: timedelta = timedelta(seconds=5)
    #: A running attempt without heartbeat for this long is a zombie (S8.4).
    heartbeat_timeout: timedelta = timedelta(seconds=60)
    #: A queued attempt without claim for this long, with no message waiting, is lost (S8.4).
    queued_timeout: timedelta = timedelta(seconds=600)
    #: Lost attempts that a task instance may have before one counts as an ordinary failure (S8.3).
    infrastructure_retries: int = 3


@dataclass(frozen=True, slots=True)
class FlowerSettings:
    """The watcher's page."""

    #: Address to listen on. Flower's `/metrics` and `/healthcheck` ask for no login: keep it on loopback.
    address: str = "127.0.0.1"
    #: Port to listen on.
    port: int = 5555
    #: Name to log in with.
    user: str = "backfill"
    #: Empty: made at first use in `core.home`, mode 0600.
    password: str = ""


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """What the processes write to stderr."""

    #: `text`, or `json`: one object a line.
    format: str = "text"
    #: Least level that coordinator and workers write: debug, info, warning or error. Other commands write warnings, with -v all of these.
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings; `origins` tells for each key where its value came from."""

    core: CoreSettings = field(default_factory=CoreSettings)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)
    celery: CelerySettings = field(default_factory=CelerySettings)
    worker: WorkerSettings = field(default_factory=WorkerSettings)
    coordinator: CoordinatorSettings = field(default_factory=CoordinatorSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    flower: FlowerSettings = field(default_factory=FlowerSettings)
    logging: LoggingSettings = field(default_factory=LoggingSettings)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False)

    def override(self, origin: str, values: Mapping[str, Any]) -> Settings:
        """Return these settings with `values` (`section.key` to a value or its text) put over them.

        Raises `ConfigError` naming the key, the value and where it came from.
        """
        settings = self
        for name, raw in values.items():
            section_name, _, key = name.partition(".")
            section = getattr(settings, section_name, None) if section_name != "origins" else None
            known = {f.name for f in fields(section)} if section is not None else set()
            if key not in known:
                raise ConfigError(f"{origin} sets {name!r}, which is no setting; {self._instead_of(name, origin)}")
            value = _convert(name, getattr(section, key), raw, origin)
            settings = replace(
                settings,
                **{section_name: replace(cast("Any", section), **{key: value})},
                origins={**settings.origins, name: origin},
            )
        return settings

    def items(self) -> list[tuple[str, Any]]:
        """Return every setting as (`section.key`, value), in the order of the documentation."""
        return [
            (f"{s.name}.{f.name}", getattr(getattr(self, s.name), f.name))
            for s in fields(self)
            if s.name != "origins"
            for f in fields(getattr(self, s.name))
        ]

    def _instead_of(self, name: str, origin: str) -> str:
        """Say what to write where `name` is no setting."""
        near = difflib.get_close_matches(name.replace("_", "."), [known for known, _ in self.items()], n=1)
        if not near:
            return "`backfill config show` lists those that exist."
        return f"did you mean {f'${_variable(near[0])}' if origin.startswith('$') else repr(near[0])}?"

    @property
    def log_folder(self) -> Path:
        """Folder of the task logs."""
        return Path(self.worker.log_folder) if self.worker.log_folder else self.core.home / "logs"

    @property
    def lease_timeout(self) -> timedelta:
        """How long a lease holds without renewal (S1.4)."""
        return 6 * self.coordinator.heartbeat_interval


def load_settings(environ: Mapping[str, str] | None = None, cwd: Path | None = None) -> Settings:
    """Return the settings that the file and the environment give.

    Raises `ConfigError` for a file that cannot be read, an unknown key, or a value of the wrong kind.
    """
    env = os.environ if environ is None else environ
    settings = Settings()
    if env.get("BACKFILL_HOME"):
        settings = settings.override("$BACKFILL_HOME", {"core.home": env["BACKFILL_HOME"]})
    file = _settings_file(env, cwd or Path.cwd(), settings.core.home)
    if file is not None:
        settings = settings.override(str(file), _read_file(file))
    for name, value in _environment(env).items():
        settings = settings.override(f"${_variable(name)}", {name: value})
    return settings


def _settings_file(env: Mapping[str, str], cwd: Path, home: Path) -> Path | None:
    named = env.get("BACKFILL_CONFIG")
    if named:
        if not Path(named).is_file():
            raise ConfigError(f"$BACKFILL_CONFIG names {named!r}, which is no file; correct the path or unset it.")
        return Path(named)
    candidates = (cwd / "config" / "backfill.toml", home / "backfill.toml")
    return next((path for path in candidates if path.is_file()), None)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"The settings file {path} cannot be read: {error}.") from error
    flat: dict[str, Any] = {}
    for section, values in content.items():
        if not isinstance(values, dict):
            raise ConfigError(
                f"The settings file {path} sets {section!r} outside of a section; put it below [section]."
            )
        flat.update({f"{section}.{key}": value for key, value in values.items()})
    return flat


def _variable(name: str) -> str:
    return f"BACKFILL__{name.replace('.', '__').upper()}"


def _refuse_if_meant(variable: str) -> None:
    """Refuse a variable that was to be a setting and is none: `BACKFILL_CORE__HOME` for `BACKFILL__CORE__HOME`."""
    _, _, rest = variable.partition("BACKFILL_")
    section, separator, key = rest.partition("__")
    if variable.startswith("BACKFILL_") and separator and section.lower() in {f.name for f in fields(Settings)}:
        raise ConfigError(f"${variable} is no setting; did you mean $BACKFILL__{section}__{key}?")


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return `section.key` to text for every `BACKFILL__SECTION__KEY` (or `…_FILE`) in `env`."""
    found: dict[str, str] = {}
    for variable, value in env.items():
        if not variable.startswith("BACKFILL__"):
            _refuse_if_meant(variable)
            continue
        name = variable.removeprefix("BACKFILL__").lower().replace("__", ".", 1)
        if name.endswith("_file") and name.removesuffix("_file") in SECRETS:
            try:
                found[name.removesuffix("_file")] = Path(value).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is no text"
                raise ConfigError(f"${variable} names {value!r}, which cannot be read: {why}.") from error
        else:
            found.setdefault(name, value)
    return found


_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off"}
#: The settings that take one of some words.
_WORDS = {"logging.format": ("text", "json"), "logging.level": ("debug", "info", "warning", "error")}
#: The settings that take a number of a range; others take any from 0.
_RANGES = {"flower.port": range(1, 65536), "coordinator.metrics_port": range(65536)}
#: The settings that take a text, but no empty one.
_NEVER_EMPTY = frozenset({"celery.queue", "coordinator.metrics_address", "flower.address", "flower.user"})
_LONGEST = timedelta(days=3650)


def _convert(name: str, present: object, raw: object, origin: str) -> object:
    """Return `raw` in the type of the setting's present value."""
    try:
        match present:
            case bool():
                return _read_truth(raw)
            case int():
                return _read_number(raw, _RANGES.get(name))
            case timedelta():
                return _read_duration(raw)
            case Path():
                return Path(_read_text(raw, may_be_empty=False)).expanduser()
            case _ if name in _WORDS:
                return _read_word(raw, _WORDS[name])
            case _:
                return _read_text(raw, may_be_empty=name not in _NEVER_EMPTY)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: no home folder for ~
        shown = "a value" if name in SECRETS else repr(raw)
        raise ConfigError(f"{origin} sets {name} to {shown}; it takes {_kind(name, present)}.") from None


def _read_truth(raw: object) -> bool:
    text = str(raw).lower()
    if text not in _TRUE | _FALSE:
        raise ValueError
    return text in _TRUE


def _read_number(raw: object, allowed: range | None) -> int:
    if not isinstance(raw, int | str) or isinstance(raw, bool):
        raise TypeError
    number = int(raw)
    if number < 0 if allowed is None else number not in allowed:
        raise ValueError
    return number


def _read_duration(raw: object) -> timedelta:
    if not isinstance(raw, int | float | str) or isinstance(raw, bool):
        raise TypeError
    duration = timedelta(seconds=float(raw))
    if not timedelta(0) < duration <= _LONGEST:
        raise ValueError
    return duration


def _read_word(raw: object, words: tuple[str, ...]) -> str:
    word = str(raw).lower()
    if word not in words:
        raise ValueError
    return word


def _read_text(raw: object, *, may_be_empty: bool) -> str:
    if not isinstance(raw, str | Path):
        raise TypeError
    text = str(raw)
    if not (text or may_be_empty):
        raise ValueError
    return text


def _kind(name: str, present: object) -> str:
    """Say what a setting takes."""
    match present:
        case bool():
            return "true or false"
        case int():
            allowed = _RANGES.get(name)
            return f"a whole number from {allowed[0]} to {allowed[-1]}" if allowed else "a whole number from 0"
        case timedelta():
            return f"seconds above 0, at most {_LONGEST.total_seconds():.0f}"
        case Path():
            return "a path"
        case _ if name in _WORDS:
            return ", ".join(_WORDS[name][:-1]) + f" or {_WORDS[name][-1]}"
        case _:
            return "a text that is not empty" if name in _NEVER_EMPTY else "a text"


def signing_key(settings: Settings) -> bytes:
    """Return the key that signs shipped DAGs: the configured one, else the one of `core.home`, made at first use.

    Of two processes that make it at once one wins, and both return the winner's.
    """
    return (settings.core.secret_key or generated_secret(settings.core.home / "secret_key")).encode()


def generated_secret(path: Path) -> str:
    """Return the secret kept in `path`; made there at first use, readable by its owner only.

    Raises `ConfigError` where the folder, which is `core.home`, cannot be used.
    """
    try:
        if not path.exists():
            _make_secret(path)
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(
            f"The secret {path} cannot be kept or read: {why}; make the folder usable, or set core.home to another one."
        ) from error


def _make_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_urlsafe(32))
    with contextlib.suppress(FileExistsError):
        os.link(fresh, path)  # fails where the path exists, which a rename would not
    fresh.unlink()
