"""From a manifest and its material to `report.html`: one file, without scripts and without a network.

Every figure of a manifest is taken from the manifest, so that page and manifest cannot differ; what a manifest has no
room for (curves, single rows, sensitivities by feature) is worked out from the material.
"""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from model.manifest import Manifest
from training.report import words
from training.report.material import Material
from training.report.sections.calibration import calibration
from training.report.sections.comparison import comparison
from training.report.sections.course import course
from training.report.sections.encoding import encoding
from training.report.sections.features import features
from training.report.sections.groups import groups
from training.report.sections.norms import norms
from training.report.sections.polynomials import polynomials
from training.report.sections.provenance import YOUR_TABLE, command
from training.report.sections.rows import rows
from training.report.sections.stress import stress
from training.report.sections.summary import best_rival, steepness_rival, summary

FOLDER = Path(__file__).parent / "templates"


def render(manifest: Manifest, material: Material) -> str:
    """Write the report of one model.

    Args:
        manifest: of the bundle that the report goes into; its `files` are not looked at.
        material: of the same run.

    Returns:
        The page, as text; the same for the same arguments.
    """
    return (
        _environment()
        .get_template("report.html")
        .render(
            manifest=manifest,
            own_name=words.OWN_NAME,
            explained=words.explained(manifest),
            summary=summary(manifest),
            rival=best_rival(manifest),
            steep_rival=steepness_rival(manifest),
            comparison=comparison(manifest),
            norms=norms(manifest, material),
            course=course(manifest, material),
            rows=rows(manifest, material),
            features=features(manifest, material),
            polynomials=polynomials(manifest, material),
            calibration=calibration(manifest, material),
            stress=stress(manifest),
            encoding=encoding(manifest),
            command=command(manifest, material),
            groups=groups(material),
            whole_command=material.config is not None,
            your_table=YOUR_TABLE,
            validation_rows=len(material.parts.validation),
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        lstrip_blocks=True,
    )
    environment.filters.update(words.FILTERS)
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    environment.globals["style"] = Markup(style)  # noqa: S704  (our own)
    return environment
