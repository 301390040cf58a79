"""The tables on unattended nights: how much drift is too much, when a night is held back, who hears of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.core.config.tables import Model, PositiveInt

Effect = Annotated[float, Field(gt=0, le=3.2)]
Distance = tuple[Effect, Effect, Effect]


class DriftConfig(Model):
    """Limits as (note, warn, stop), each on an effect size that knows neither units nor how many stays there are.

    `distance`: Kolmogorov-Smirnov, 0 to 1, for values and lengths. `share`: Cohen's h, for what was measured, known or
    in which category. `prevalence`: Cohen's h, for labels; tighter, as models learn them.
    """

    action: Literal["stop", "report"] = "stop"  # "report": nothing stops, the page shows it
    distance: Distance = (0.10, 0.20, 0.35)
    share: Distance = (0.15, 0.30, 0.60)
    prevalence: Distance = (0.10, 0.20, 0.30)
    false_alarm: Annotated[float, Field(gt=0, le=0.1)] = 0.001  # of a whole night in which nothing has changed
    min_new: PositiveInt = 50  # new subjects are also compared on their own once there are so many
    accepted: str = ""  # the code of a drift that somebody has read and accepts, told by the night that it stopped

    @model_validator(mode="after")
    def _ordered(self) -> DriftConfig:
        for name in ("distance", "share", "prevalence"):
            note, warn, stop = getattr(self, name)
            if not note <= warn <= stop:
                raise ValueError(f"{name} is (note, warn, stop), and none may be smaller than the one before")
        return self


class NightConfig(Model):
    """What an unattended run does beside the road. A password, or an address that may hold a token, is not here."""

    cron: str = "0 2 * * *"  # minute hour day month weekday, of the schedule; what runs by systemd's clock has its own
    timezone: str = "UTC"
    catch_up: Literal["skip", "once"] = "skip"  # "once": however many nights were missed, one is begun at once
    records_minutes: Annotated[int, Field(ge=0)] = 0  # look so often whether records came; 0 = begin by the clock alone
    records_command: tuple[str, ...] = ()  # asked instead of the source's files: another answer means that records came
    stage_minutes: Annotated[int, Field(ge=0)] = 720  # a stage that is longer at work ends the night; 0 = no limit
    min_new_subjects: Annotated[int, Field(ge=0)] = 0  # fewer since the last release: no new one is made
    notify_on: Literal["failure", "all", "never"] = "failure"  # "failure": whatever is not released, unchanged or held
    notify_command: tuple[str, ...] = ()  # given the notice as JSON on its standard input
    mail_to: tuple[str, ...] = ()
    mail_from: str = "decoct@localhost"
    smtp_host: str = "localhost"
    smtp_port: Annotated[int, Field(ge=1, le=65535)] | None = None  # None: 25, 587 or 465, as smtp_security says
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    metrics: Path | None = None  # a file for Prometheus, written after each night
    smtp_user: str = ""  # its password is in the environment, or in a file that the environment names

    @model_validator(mode="after")
    def _asked_at_all(self) -> NightConfig:
        if self.records_command and not self.records_minutes:
            raise ValueError("records_command is asked every records_minutes, which must be above 0")
        return self

    @model_validator(mode="after")
    def _password_kept(self) -> NightConfig:
        if self.smtp_user and self.smtp_security == "none" and self.smtp_host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError('smtp_user sends a password: smtp_security must be "starttls" or "tls"')
        return self
