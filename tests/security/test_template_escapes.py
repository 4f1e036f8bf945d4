"""A template reaches what the context has, and not the insides of Python behind it."""

from __future__ import annotations

import jinja2
import pytest

from backfill.dag.template_renderer import TemplateRenderer

ESCAPES = (
    "{{ ''.__class__.__mro__ }}",
    "{{ ''['__class__'] }}",
    "{{ '' | attr('__class__') }}",
    "{{ ['']  | map(attribute='__class__') | list }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{x.__class__}'.format_map({'x': ''}) }}",
    "{{ ('{0.__class__}' | string).format('') }}",
    "{{ function.__globals__ }}",
    "{{ function.__code__.co_consts }}",
    "{{ generator.gi_frame.f_globals }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ lipsum.__globals__['os'] }}",
    "{% set x = ''.__class__ %}{{ x.__base__ }}",
    "{{ function['__globals__']['SECRET'] }}",
)
SECRET = "the inside"


def function() -> str:
    return SECRET


@pytest.mark.parametrize("native", [False, True], ids=["text", "native"])
@pytest.mark.parametrize("template", ESCAPES)
def test_a_template_cannot_get_at_the_insides(template: str, native: bool) -> None:
    context = {"function": function, "generator": (n for n in range(3))}
    rendered = ""
    try:
        rendered = str(TemplateRenderer(native=native).render_text(template, context))
    except jinja2.TemplateError:
        return  # refused, in words
    assert not any(sign in rendered for sign in ("<class", "class '", SECRET, "module", "object>"))
