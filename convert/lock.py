"""configs/models.lock.yaml: the only list of models, where each may come from, and the hash it must have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from whis_box.config import Section, describe_validation
from whis_box.errors import ConfigError
from whis_box.paths import read_text
from whis_box.schemas import Sha256

LOCK_PATH = Path(__file__).resolve().parent.parent / "configs" / "models.lock.yaml"
Quant = Literal["Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16"]


class WheelSource(Section):
    """A Python wheel that carries the weights."""

    kind: Literal["wheel"]
    requirement: str = Field(pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9.]+$")
    wheel_sha256: Sha256


class FolderSource(Section):
    """A folder on the build host, or one of the repository when the path is relative."""

    kind: Literal["folder"]
    path: Path


class HubSource(Section):
    """A model hub, by id and pinned revision; reached on a connected build host only."""

    kind: Literal["hub"]
    id: str
    revision: str | None = Field(None, pattern=r"^[0-9a-f]{40}$")
    """A commit; None until `python -m convert.fetch NAME --pin` has been reviewed."""
    patterns: list[str] = ["config.json", "generation_config.json", "tokenizer*", "*.safetensors"]
    """What to take when the model is pinned."""


class ModelFile(Section):
    """One file of a model: where it is in its source, what it is called here, its hash."""

    member: str = Field(pattern=r"^[^/\\][^\\]*$")
    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    sha256: Sha256

    @model_validator(mode="after")
    def _stays_inside(self) -> ModelFile:
        if ".." in self.member.split("/"):
            raise ValueError("member must not leave its source")
        return self


class ModelEntry(Section):
    """One model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    role: Literal["base", "embedder"]
    source: Annotated[WheelSource | FolderSource | HubSource, Field(discriminator="kind")]
    files: list[ModelFile] = []
    license: str
    n_ctx: int = Field(gt=0)
    prompt_template: Literal["chatml", "llama3", "mistral", "none"]
    """What the model was tuned on; whis_box/prompts.py writes chatml."""
    guidance: str = ""
    """What it is good for and what it needs."""
    quantize: Quant | None = None
    quantized_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _is_pinned(self) -> ModelEntry:
        if not self.files and not isinstance(self.source, HubSource):
            raise ValueError("files must list every file with its hash")
        return self

    def file(self, name: str) -> ModelFile:
        """One listed file by its name here.

        Raises: ConfigError if it is not listed.
        """
        for entry in self.files:
            if entry.name == name:
                return entry
        raise ConfigError(f"{LOCK_PATH.name}: {self.name}: lists no file {name}")


class ModelsLock(Section):
    """The whole list and the defaults chosen from it."""

    default_base: str
    default_embedder: str
    models: list[ModelEntry]

    @model_validator(mode="after")
    def _defaults_are_listed(self) -> ModelsLock:
        names = [entry.name for entry in self.models]
        if len(set(names)) != len(names):
            raise ValueError("a model name appears twice")
        for wanted, role in ((self.default_base, "base"), (self.default_embedder, "embedder")):
            if not any(entry.name == wanted and entry.role == role for entry in self.models):
                raise ValueError(f"default {role} {wanted!r} is not listed with that role")
        return self

    def entry(self, name: str) -> ModelEntry:
        """One model by name.

        Raises: ConfigError naming the models there are.
        """
        for entry in self.models:
            if entry.name == name:
                return entry
        raise ConfigError(
            f"{LOCK_PATH.name}: no model {name!r}; listed are {sorted(one.name for one in self.models)}"
        )


def read_lock(path: Path = LOCK_PATH) -> ModelsLock:
    """Read the list.

    Raises: NotReadyError if it is missing; ConfigError naming every bad key; StorageError.
    """
    try:
        return ModelsLock.model_validate(yaml.safe_load(read_text(path, "take it from the repository")))
    except (yaml.YAMLError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path}: not valid YAML: {cause}") from None
    except ValidationError as cause:
        raise ConfigError(describe_validation(str(path), cause)) from None
