"""Params: values that a DAG or task declares and a run's conf may replace (S12.4)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from backfill.exceptions import DagError, UsageError

if TYPE_CHECKING:
    from backfill.dag.abstract_operator import AbstractOperator
    from backfill.dag.dag import DAG


class _NotSet:
    """The type of `NOTSET`."""

    def __repr__(self) -> str:
        return "NOTSET"

    def __reduce__(self) -> str:
        return "NOTSET"


#: "Not given", where None is a value.
NOTSET = _NotSet()


class Param:
    """A value with a JSON schema: `Param(5, type="integer", minimum=1)`.

    Without a default a run's conf must give the value. Raises `DagError` for a default that JSON cannot hold.
    """

    def __init__(self, default: Any = NOTSET, description: str | None = None, **schema: Any) -> None:
        if default is not NOTSET:
            try:
                json.dumps(default)
            except (TypeError, ValueError):
                raise DagError(
                    f"The param default {default!r} cannot be written as JSON; use text or numbers."
                ) from None
        self.value = default
        self.description = description
        self.schema = schema.pop("schema", None) or schema

    def __repr__(self) -> str:
        return f"Param({self.value!r})"

    def with_value(self, value: Any) -> Param:
        """Return a param of the same schema with another value."""
        return Param(value, self.description, schema=self.schema)

    def resolve(self, name: str = "value") -> Any:
        """Return the value after checking it against the schema; `UsageError` names the param `name`."""
        if self.value is NOTSET:
            raise UsageError(f"The param {name!r} has no value; give it with conf (--conf '{{\"{name}\": …}}').")
        if self.schema:
            _check(name, self.value, self.schema)
        return self.value


def _check(name: str, value: Any, schema: dict[str, Any]) -> None:
    import jsonschema  # noqa: PLC0415  # a tenth of a second that DAGs without schemas need not wait for

    try:
        _validator(json.dumps(schema, sort_keys=True)).validate(value)
    except jsonschema.ValidationError as error:
        raise UsageError(f"The param {name!r} is {value!r}, which does not fit its schema: {error.message}.") from None
    except jsonschema.SchemaError as error:
        raise DagError(f"The schema of the param {name!r} is wrong: {error.message}.") from None


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """Return what checks values against a schema, itself checked once: that takes a millisecond."""
    import jsonschema  # noqa: PLC0415  # as above

    rules = json.loads(schema)
    kind = jsonschema.validators.validator_for(rules)
    kind.check_schema(rules)
    return kind(rules, format_checker=jsonschema.FormatChecker())


class Params(Mapping[str, Any]):
    """Params by name; a plain value is a param without a schema. `params["x"]` is the checked value."""

    def __init__(self, params: Mapping[str, Any] | None = None) -> None:
        self._params = {
            name: value if isinstance(value, Param) else Param(value) for name, value in (params or {}).items()
        }

    @classmethod
    def of(cls, value: object) -> Self:
        """Return `value`, a mapping or None, as params; `ValueError` for anything else."""
        if value is None or isinstance(value, Mapping):
            return cls(value.declared if isinstance(value, Params) else value)
        raise ValueError

    def __getitem__(self, name: str) -> Any:
        """Return the checked value of `name`; `UsageError` if it has none or it does not fit."""
        return self._params[name].resolve(name)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names."""
        return iter(self._params)

    def __len__(self) -> int:
        """Return the number of params."""
        return len(self._params)

    def __repr__(self) -> str:
        return f"Params({self._params!r})"

    @property
    def declared(self) -> Mapping[str, Param]:
        """The `Param` objects by name."""
        return self._params

    def get_param(self, name: str) -> Param:
        """Return the `Param` object of `name`."""
        return self._params[name]

    def overlaid(self, other: Mapping[str, Any]) -> Params:
        """Return these with `other` put over them; a plain value keeps the schema that stands below it."""
        merged: dict[str, Any] = dict(self._params)
        source = other.declared if isinstance(other, Params) else other
        for name, value in source.items():
            if name in merged and not (isinstance(value, Param) and value.schema):
                merged[name] = merged[name].with_value(value.value if isinstance(value, Param) else value)
            else:
                merged[name] = value
        return Params(merged)

    def resolve(self) -> dict[str, Any]:
        """Return all values after checking each."""
        return {name: self[name] for name in self._params}


def resolve_params(dag: DAG, task: AbstractOperator | None, conf: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the params of a task (of the DAG alone without one) under a run's conf (S12.4).

    Raises `UsageError` naming the param that has no value or does not fit its schema.
    """
    if not (conf or dag.params or (task is not None and task.params)):
        return {}
    params = dag.params if task is None else dag.params.overlaid(task.params)
    return params.overlaid(conf or {}).resolve()
