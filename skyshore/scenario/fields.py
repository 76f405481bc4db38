"""Field types that all tables of a scenario share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class ScenarioTable(BaseModel):
    """One table of a scenario file: frozen, unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
