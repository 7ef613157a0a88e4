"""The only settings. A flag beats the environment, which beats `warpsmith.toml`, which beats the default.

The environment holds them as `WARPSMITH_BUDGET=300`; `warpsmith.toml`, looked for in the current folder, by name:

    device = "H100"
    budget = 300
"""

from __future__ import annotations

import os
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from warpsmith.errors import SettingsError

FILE_NAME = "warpsmith.toml"
_PREFIX = "WARPSMITH_"


def user_cache() -> Path:
    """Return the folder where this platform wants caches of the current user to be kept, without creating it."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "warpsmith"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "warpsmith"


def usable_cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Settings(BaseSettings):
    """Everything that can be set. Build it with `load_settings`, which turns a bad value into one clear message."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, toml_file=FILE_NAME, extra="forbid", frozen=True)

    archive: str = Field("warpsmith-out/archive.db", min_length=1, description="Archive: a file, or a database URL.")
    out: Path = Field(Path("warpsmith-out"), description="Folder for results, one folder per task in it.")
    cache: Path = Field(default_factory=user_cache, description="Folder for compiled programs.")
    device: str = Field("auto", min_length=1, description="GPU to optimize for, by name; auto: the one that is here.")
    simulate: bool = Field(False, description="Simulate even where the GPU is here; times are then estimates.")
    hybrid: bool = Field(False, description="Let programs call cuBLAS and cuDNN; by default our kernels do all work.")
    workers: int = Field(default_factory=usable_cores, ge=1, le=1024, description="Judging processes.")
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of every choice that is left to chance.")
    budget: float = Field(60.0, gt=0, allow_inf_nan=False, description="Seconds of work: the one dial.")
    max_candidates: int | None = Field(None, ge=1, description="Most candidates to judge; by default from the budget.")
    judge_limit: float = Field(60.0, gt=0, allow_inf_nan=False, description="Seconds that one candidate may be judged.")
    confirm: bool = Field(
        True, description="On a GPU, judge the winner once more: every input family, compute-sanitizer, Nsight Compute."
    )
    target_fraction: float | None = Field(
        None, gt=0, le=1, description="Stop at this share of the speed of light; by default go on to the end."
    )
    models: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Language models as authors: provider:model, or openai@URL:model; several with commas."
    )
    model_timeout: float = Field(180.0, gt=0, allow_inf_nan=False, description="Seconds that one answer may take.")
    model_prompt_tokens: int = Field(
        48_000, ge=1, description="Most tokens of a prompt, as estimated: leave room in the model's window."
    )
    model_reply_tokens: int = Field(20_000, ge=1, description="Most tokens of a reply.")
    requests_per_minute: float = Field(60.0, gt=0, allow_inf_nan=False, description="Most requests to one model.")
    max_usd: float | None = Field(None, gt=0, allow_inf_nan=False, description="Most US dollars for one search.")
    agent_command: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Program of a coding agent with its arguments, as one writes it in a shell, to ask as an author.",
    )
    agent_environment: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Environment variables that the agent may see, by name, with commas."
    )
    agent_seconds: float = Field(900.0, gt=0, allow_inf_nan=False, description="Seconds that it has for an answer.")

    @field_validator("models", "agent_environment", mode="before")
    @classmethod
    def _by_commas(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("agent_command", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @field_validator("out", "cache")
    @classmethod
    def _expand(cls, folder: Path) -> Path:
        return folder.expanduser()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in order: flags, environment, `warpsmith.toml`."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    def to_json(self) -> str:
        """Return all values as JSON text, for the archive's record of a run. It holds no password of a database."""
        safe = self.model_copy(update={"archive": without_password(self.archive)})
        return safe.model_dump_json()


def without_password(url: str) -> str:
    """Return a database URL with `***` for its password; anything else, such as a path, comes back as it is."""
    scheme, separator, rest = url.partition("://")
    user, at, host = rest.rpartition("@")
    if not separator or not at or ":" not in user:
        return url
    return f"{scheme}://{user.partition(':')[0]}:***@{host}"


def load_settings(**flags: Any) -> Settings:
    """Return the settings, where a flag that is None was not given.

    Raises SettingsError naming the field, the value and what would be right; for a broken `warpsmith.toml` it names
    the file.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for variable in os.environ:
        if variable.startswith(_PREFIX) and variable.removeprefix(_PREFIX).lower() not in Settings.model_fields:
            raise SettingsError(f"the environment sets {variable}, which is not a setting; known are {_known()}")
    try:
        return Settings(**given)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"not valid TOML: {error}", file=FILE_NAME) from None
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(detail, given) for detail in error.errors())) from None


def _known() -> str:
    return ", ".join(Settings.model_fields)


def _explain(detail: Any, flags: dict[str, Any]) -> str:
    """Say in a line what is wrong with one field, and where the value came from."""
    name = str(detail["loc"][0]) if detail["loc"] else "settings"
    if detail["type"] == "extra_forbidden":
        return f"{FILE_NAME} sets {name!r}, which is not a setting; known are {_known()}"
    if name in flags:
        place = "given"
    elif any(variable.upper() == f"{_PREFIX}{name}".upper() for variable in os.environ):
        place = f"from {_PREFIX}{name.upper()}"
    else:
        place = f"from {FILE_NAME}"
    message = str(detail["msg"])
    return f"{name} = {detail['input']!r} ({place}): {message[:1].lower()}{message[1:]}"
