"""Every setting of the service: a flag of `chainzrule-serve`, and a variable `CHAINZRULE_…` of the environment.

The one module of `service` that reads the environment. Settings are read once and never change.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Percentile = Annotated[float, Field(ge=0, le=100)]
Device = Literal["auto", "cuda", "cpu"]


class Settings(BaseSettings):
    """Serve every bundle of a repository: predictions with their sensitivity, over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix="CHAINZRULE_",
        frozen=True,
        extra="ignore",  # CHAINZRULE_DATA, for one, is not the service's
        cli_prog_name="chainzrule-serve",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    repository: Path = Field(Path("bundles"), description="folder of bundles, <model>/<version>/model.onnx")
    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every IPv4 address of the machine"
    )
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 for any free one")
    device: Device = Field(
        "auto", description="what predictions run on; cuda refuses to start without a GPU, auto says what it got"
    )
    concurrency: int = Field(2, ge=1, description="requests that are computed at once; further ones wait")
    threads: int = Field(1, ge=1, description="threads of one prediction, on the CPU")
    elevated_percentile: Percentile = Field(
        95.0, description="percentile of the calibration set above which a gradient norm is elevated"
    )
    critical_percentile: Percentile = Field(
        99.0, description="percentile of the calibration set above which a gradient norm is critical"
    )
    max_rows: int = Field(10_000, ge=1, description="greatest number of rows of a request")
    max_body_bytes: int = Field(16 * 2**20, ge=1, description="greatest body of a request, in bytes")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.elevated_percentile > self.critical_percentile:
            raise ValueError(
                f"expected elevated_percentile of at most critical_percentile, got {self.elevated_percentile:g} "
                f"and {self.critical_percentile:g}"
            )
        return self
