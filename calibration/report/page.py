"""Write a report as one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dynamic_tinybert.runtime.common.errors import InvalidInputError
from dynamic_tinybert.runtime.common.publish import writing

from . import plots
from .contents import Report
from .svg import COLOURS


def write_report(report: Report, path: str | Path) -> None:
    """Write the page of a report; the same report always gives the same bytes.

    Args:
        report: The contents.
        path: The HTML file. An existing file is replaced once the new one is complete.

    Raises:
        InvalidInputError: The folder to write to does not exist.
        StorageError: The page could not be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InvalidInputError(f"there is no folder {path.parent} to write {path.name} to")
    page = _render(report)
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            partial.write_text(page, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _render(report: Report) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "signed": _signed}
    full = next((result for result in report.named if result.name == "full"), None)
    return environment.get_template("page.html.jinja").render(
        report=report,
        full=full,
        plots=plots,
        colours=COLOURS,
        colour_of=plots.colours(report.named),
        hidden=sum(point.score < plots.lowest_shown(report) for point in report.points),
        most_tokens=max(spread.high for result in report.named for spread in result.kept),
    )


def _number(value: float, digits: int = 2) -> str:
    return f"{value:.{digits}f}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
