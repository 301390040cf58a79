"""The record as one self-contained HTML page: no network, no script, no clock; the same record gives the same bytes."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound

from pipeline.report.formats import FILTERS
from pipeline.report.record import RunRecord, record_json
from pipeline.report.views import page_view


def render_report(record: RunRecord) -> str:
    """The page of a run."""
    return render_json(record_json(record))


def render_json(data: dict[str, Any]) -> str:
    """The page from `record_json`'s data, for instance read back from a file."""
    return environment().get_template("report.html.j2").render(**page_view(data))


class _PackageTemplates(BaseLoader):
    """Templates from this package's data, wherever it is installed."""

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, None]:
        resource = files("pipeline.report") / "templates" / template
        if "/" in template or not resource.is_file():
            raise TemplateNotFound(template)
        return resource.read_text(encoding="utf-8"), template, None


def environment() -> Environment:
    """Templates and filters of both pages."""
    environment = Environment(
        loader=_PackageTemplates(), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(FILTERS)
    return environment
