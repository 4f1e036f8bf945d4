"""Rendering of template fields (S12.1): sandboxed Jinja in which an undefined name is an error.

Only text that stands in the DAG file is a template. What comes from XComs, conf or params is a value and is never rendered.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backfill.dag.references import Reference

if TYPE_CHECKING:
    from backfill.dag.dag import DAG
    from backfill.dag.template_renderer import TemplateRenderer

_CACHE = "_template_renderer"


def render(  # one return for each kind of value
    value: Any, context: Mapping[str, Any], dag: DAG | None, template_ext: Sequence[str] = ()
) -> Any:
    """Return `value` with its texts rendered and its references resolved, also in lists, tuples, sets and dicts.

    A text that ends with one of `template_ext` names a file. Raises what Jinja, a macro or a reference raises.
    """
    match value:
        case None:
            return None
        case str():
            return _render_text(value, context, dag, template_ext)
        case list():
            return [render(member, context, dag, template_ext) for member in value]
        case tuple():
            members = [render(member, context, dag, template_ext) for member in value]
            return type(value)(*members) if hasattr(value, "_fields") else tuple(members)
        case set():
            return {render(member, context, dag, template_ext) for member in value}
        case dict():
            return {key: render(member, context, dag, template_ext) for key, member in value.items()}
        case Reference():  # after what most fields are: to find out takes longer than to render a short text
            return value.resolve(context)
        case _:
            return _render_object(value, context, dag)


def _render_object(value: Any, context: Mapping[str, Any], dag: DAG | None) -> Any:
    """Return a copy of an object that names `template_fields` of its own with these rendered, anything else as it is."""
    fields = getattr(value, "template_fields", ())
    if not fields or isinstance(fields, str) or isinstance(value, type):
        return value
    rendered = copy.copy(value)
    for field in fields:
        setattr(rendered, field, render(getattr(value, field), context, dag, getattr(value, "template_ext", ())))
    return rendered


def _render_text(text: str, context: Mapping[str, Any], dag: DAG | None, template_ext: Sequence[str]) -> Any:
    is_file = bool(template_ext) and text.endswith(tuple(template_ext))
    native = dag is not None and dag.render_template_as_native_obj
    if not is_file and not native and "{" not in text:
        return text
    renderer = renderer_of(dag)
    return renderer.render_file(text, context) if is_file else renderer.render_text(text, context)


def renderer_of(dag: DAG | None) -> TemplateRenderer:
    """Return the DAG's renderer, made at first use."""
    from backfill.dag.template_renderer import TemplateRenderer  # noqa: PLC0415  # DAGs without templates need no Jinja

    if dag is None:
        return TemplateRenderer()
    renderer: TemplateRenderer | None = dag.__dict__.get(_CACHE)
    if renderer is None:
        renderer = dag.__dict__[_CACHE] = TemplateRenderer.of(dag)
    return renderer


def forget_renderer(state: dict[str, Any]) -> None:
    """Take the renderer out of a DAG's state, since it cannot be pickled and is made anew."""
    state.pop(_CACHE, None)
