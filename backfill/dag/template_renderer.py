"""The Jinja environment of a DAG, with its macros, filters and files, and the templates compiled in it."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jinja2
import jinja2.meta
from jinja2.nativetypes import NativeEnvironment
from jinja2.sandbox import SandboxedEnvironment

if TYPE_CHECKING:
    from backfill.dag.dag import DAG


class _NativeSandbox(NativeEnvironment, SandboxedEnvironment):
    """Gives Python values instead of text, in the sandbox."""


def _date_filter(form: str) -> Callable[[datetime | None], str | None]:
    """Return a filter that writes a date; None, as the dates of a previous success may be, stays None."""
    return lambda date: None if date is None else date.isoformat() if form == "iso" else date.strftime(form)


#: Filters for dates, as in Airflow.
_FILTERS = {
    "ds": _date_filter("%Y-%m-%d"),
    "ds_nodash": _date_filter("%Y%m%d"),
    "ts": _date_filter("iso"),
    "ts_nodash": _date_filter("%Y%m%dT%H%M%S"),
    "ts_nodash_with_tz": _date_filter("%Y%m%dT%H%M%S%z"),
}


class TemplateRenderer:
    """Renders texts and files; each is compiled once."""

    def __init__(
        self,
        *,
        native: bool = False,
        folders: Sequence[str] = (),
        shipped: Mapping[str, str] | None = None,
        macros: Mapping[str, Any] | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> None:
        environment = _NativeSandbox if native else SandboxedEnvironment
        self._environment = environment(
            undefined=jinja2.StrictUndefined,
            loader=jinja2.ChoiceLoader([jinja2.DictLoader(shipped or {}), jinja2.FileSystemLoader(folders)]),
            extensions=["jinja2.ext.do"],
            keep_trailing_newline=True,
        )
        self._environment.globals.update(macros or {})
        self._environment.filters.update(_FILTERS)
        self._environment.filters.update(filters or {})
        self._compiled: dict[str, jinja2.Template] = {}

    @classmethod
    def of(cls, dag: DAG) -> TemplateRenderer:
        """Return the renderer of a DAG."""
        return cls(
            native=dag.render_template_as_native_obj,
            folders=template_folders(dag),
            shipped=dag.shipped_templates,
            macros=dag.user_defined_macros,
            filters=dag.user_defined_filters,
        )

    def render_text(self, text: str, context: Mapping[str, Any]) -> Any:
        """Return the rendered text; with native rendering the Python value that it spells."""
        template = self._compiled.get(text)
        if template is None:
            template = self._compiled[text] = self._environment.from_string(text)
        return self._render(template, context)

    def render_file(self, name: str, context: Mapping[str, Any]) -> Any:
        """Return the rendered content of the file `name`."""
        return self._render(self._environment.get_template(name), context)

    def _render(self, template: jinja2.Template, context: Mapping[str, Any]) -> Any:
        """Render without copying the context, so that entries worked out when asked for are so only if the template asks."""
        names = ChainMap(cast("MutableMapping[str, Any]", context), template.globals)
        parts = template.root_render_func(template.new_context(names, shared=True))  # type: ignore[arg-type]  # a mapping does
        return _defined(self._environment.concat(parts))

    def sources_of(self, name: str) -> Iterator[tuple[str, str]]:
        """Yield (name, source) of a template file and of those that it includes; nothing for what cannot be read."""
        loader = self._environment.loader
        assert loader is not None
        try:
            source, _file, _up_to_date = loader.get_source(self._environment, name)
            included = list(jinja2.meta.find_referenced_templates(self._environment.parse(source)))
        except jinja2.TemplateError:
            return
        yield name, source
        for other in included:
            if other is not None and other != name:
                yield from self.sources_of(other)


def _defined(value: Any) -> Any:
    """Return `value`, unless native rendering has handed out an undefined one: looking at that raises what it stands for."""
    if isinstance(value, jinja2.Undefined):
        str(value)
    return value


def template_folders(dag: DAG) -> list[str]:
    """Return where template files are looked for: the DAG file's folder, then `template_searchpath`."""
    own = [str(Path(dag.fileloc).parent)] if dag.fileloc else []
    return [*own, *dag.template_searchpath]
