"""configs/tui.yaml: how the terminal looks, which keys it takes, and where its server is.

Invariant: no secret stands here; a key for the server comes from the environment variable WHIS_API_KEY.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tui.keymap import KEYS
from whis_box.config import Section, load_config
from whis_box.errors import ConfigError
from whis_box.paths import repository_root

ThemeName = Literal["dark", "light", "contrast", "mono"]
THEMES: tuple[ThemeName, ...] = ("dark", "light", "contrast", "mono")


class ServerSettings(Section):
    """Which server answers; flags of `whis tui` win."""

    url: str = ""
    """`http://127.0.0.1:8088`, or `unix:PATH`; empty looks for a running one, else starts a private one."""
    start_timeout_s: float = Field(60.0, gt=0, le=3600)
    """How long a private server may load before the screen says that it takes too long."""


class TuiConfig(Section):
    """configs/tui.yaml."""

    server: ServerSettings = ServerSettings()
    """Which server answers."""
    theme: ThemeName = "dark"
    """dark, light, contrast (high contrast) or mono (no colour); NO_COLOR in the environment means mono."""
    ascii: Literal["auto", "yes", "no"] = "auto"
    """Draw with ASCII only; `auto` does where the locale is not UTF-8."""
    screen_reader: bool = False
    """No frames, no side-by-side panes, and each change is said in one line."""
    mouse: bool = True
    """Take the mouse; `false` leaves selecting text to the terminal."""
    history_days: int = Field(90, ge=0, le=36500)
    """How long questions and answers are kept; 0 keeps none."""
    analyst: str = Field("", max_length=100)
    """Name sent with feedback; empty sends none."""
    consent_training: bool = False
    """Whether judgements may become training pairs (redacted, and only on export)."""
    promptbooks: Path | None = None
    """A YAML file with promptbooks of your own."""
    keymap: dict[str, str] = Field(default_factory=dict)
    """Other keys for an action, as `ask.stop: escape,ctrl+x`; docs/tui.md lists the actions."""


def user_config_path() -> Path:
    """Where an analyst's own settings lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "whis-box" / "tui.yaml"


def read_settings(named: Path | None) -> TuiConfig:
    """The named file, else the user's, else the repository's, else the defaults.

    Raises: NotReadyError if a named file is missing; ConfigError; StorageError.
    """
    places = [named] if named else [user_config_path(), repository_root() / "configs" / "tui.yaml"]
    path = next((one for one in places if named or one.is_file()), None)
    if path is None:
        return TuiConfig()
    config = load_config(path, TuiConfig)
    unknown = sorted(set(config.keymap) - set(KEYS))
    if unknown:
        known = ", ".join(sorted(KEYS))
        raise ConfigError(f"{path}: keymap has no action {', '.join(unknown)}; there are {known}")
    return config


def with_flags(config: TuiConfig, **given: object) -> TuiConfig:
    """The settings with what flags say.

    Raises: ConfigError.
    """
    fields = config.model_dump() | {name: value for name, value in given.items() if value is not None}
    try:
        return TuiConfig.model_validate(fields)
    except ValidationError as cause:
        raise ConfigError(f"whis tui: {cause}") from None
