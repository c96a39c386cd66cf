"""How the model could be trained again."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.manifest import Manifest
from training.config import ELSEWHERE, IN_MEMORY, FitConfig
from training.data.load import NAMED
from training.data.table import Split
from training.report.material import Material

YOUR_TABLE = "YOUR-TABLE"


def command(manifest: Manifest, material: Material) -> str:
    """`chainzrule-train fit` with every setting that is no default, quoted for a POSIX shell.

    From the settings themselves where the material has them, else from what the manifest holds. Of a table that was in
    memory no command knows: then it is the call in Python.
    """
    config = material.config or of_manifest(manifest, material.parts)
    if config.dataset == IN_MEMORY or (config.dataset not in NAMED and config.target is None):
        changed = [
            f"{name}={getattr(config, name)!r}"
            for name, field in FitConfig.model_fields.items()
            if name not in ELSEWHERE and getattr(config, name) != field.default
        ]
        return f"training.fit({', '.join(['table', *changed])})"
    words = ["chainzrule-train", "fit", config.dataset if config.dataset in NAMED else Path(config.dataset).name]
    for name, field in FitConfig.model_fields.items():
        value = getattr(config, name)
        if name in ELSEWHERE or value == field.default:
            continue
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        texts = _by_column(value) if isinstance(value, dict) else [_text(value)]
        for text in texts:
            words += [f"--{flag}={text}"] if text.startswith("-") else [f"--{flag}", text]
    return shlex.join(words)


def of_manifest(manifest: Manifest, parts: Split) -> FitConfig:
    """The settings that a manifest and a split hold.

    They do not hold which columns were left out, how missing values are written, groups, class weights, early stopping,
    the device, nor the share of the calibration rows.
    """
    made, dreg = manifest.provenance, manifest.provenance.dreg
    settings: dict[str, object] = {}
    if made.dataset not in NAMED:
        settings = {
            "target": manifest.target.name,
            "task": manifest.task.value,
            "categorical": tuple(one.name for one in manifest.features if one.type == "categorical"),
            "units": {one.name: one.unit for one in manifest.features if one.unit},
        }
        rows = sum(len(part) for part in (parts.training, parts.validation, parts.calibration, parts.test))
        share = made.rows.test / rows
        default = float(FitConfig.model_fields["test_share"].default)
        if round(default * rows) != made.rows.test and share < 0.5:
            settings["test_share"] = round(share, 6)
    if len(parts.validation):
        share = len(parts.validation) / (len(parts.validation) + len(parts.training))
        settings["validation_share"] = round(share, 6)
    return FitConfig.model_validate(
        {
            "dataset": made.dataset if made.dataset in NAMED else YOUR_TABLE,
            "name": None if manifest.name == made.dataset and made.dataset in NAMED else manifest.name,
            "hidden": manifest.architecture.hidden,
            "degree": manifest.architecture.degree,
            "bound": manifest.architecture.bound,
            "dreg": dreg.form,
            "dreg_weight": dreg.end_weight,
            "dreg_start": dreg.start_weight,
            "dreg_schedule": dreg.schedule,
            "dreg_ramp": dreg.ramp,
            "epochs": made.epochs,
            "batch_size": made.batch_size,
            "learning_rate": made.learning_rate,
            "weight_decay": made.weight_decay,
            "seed": made.seed,
            **settings,
        }
    )


def _by_column(settings: Mapping[str, str | Sequence[str]]) -> list[str]:
    """`column=text`, with commas between several texts; JSON where a name or a text has such a sign itself."""
    words = []
    for column, value in settings.items():
        several = not isinstance(value, str)
        texts = list(value)
        if not column or "=" in column or column.startswith("{") or (several and any("," in text for text in texts)):
            words.append(json.dumps({column: texts if several else value}, ensure_ascii=False))
        else:
            words.append(f"{column}={','.join(texts) if several else value}")
    return words


def _text(value: object) -> str:
    """As the command line reads it."""
    if isinstance(value, tuple) and all(re.fullmatch(r"[\w.+-]+", str(part)) for part in value):
        return ",".join(str(part) for part in value) or "none"
    if isinstance(value, tuple):
        return json.dumps(value, ensure_ascii=False)
    return "none" if value is None else str(value)
