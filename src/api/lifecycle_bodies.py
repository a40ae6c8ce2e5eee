"""The bodies that the lifecycle's routes take."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds a NUL character, which no database takes")
    return text


# A bound of any kind also has pydantic refuse what is no Unicode.
Text = Annotated[str, Field(max_length=500), AfterValidator(_without_nul)]
Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_without_nul)]
Message = Annotated[str, Field(max_length=10_000), AfterValidator(_without_nul)]
Description = Annotated[str, Field(max_length=5000), AfterValidator(_without_nul)]  # MLflow's columns hold no more


class Body(BaseModel):
    """A body without unknown fields, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Download(Body):
    """One model (or dataset) to fetch."""

    model_source: Name = Field("huggingface", description="huggingface, or ollama for models")
    model_name: Name = Field(description="as its source calls it", examples=["google/gemma-2b"])
    revision: Text | None = Field(None, description="branch, tag or commit; none: the default branch")
    allow_patterns: list[Text] | None = Field(None, description="only files that match one of these globs")


class BatchDownload(Body):
    """Several downloads under one job."""

    downloads: list[Download] = Field(min_length=1, max_length=200)


class UploadToStore(Body):
    """A staged folder to commit."""

    repo_name: Name = Field(examples=["gemma-models"])
    local_model_name: Name = Field(description="as GET /local lists it", examples=["google_gemma-2b"])
    branch: Name = "main"
    message: Message = ""


class Branch(Body):
    """A branch to make."""

    name: Name
    source: Name = Field("main", description="branch or commit that it begins at")


class Merge(Body):
    """A merge of one ref into a branch."""

    source: Name
    into: Name = "main"
    message: Message = ""


class Checkout(Body):
    """A commit to put in place."""

    repo_name: Name
    commit_id: Name = Field(description="a commit id, its beginning, or a branch")


class _Registration(Body):
    model_params: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="parameters in billions; none: counted or estimated"
    )
    version_description: Description = ""
    stage: Text | None = Field(None, description="production, staging, archived or none")
    set_priority_to_one: bool = Field(False, description="first in line when the serving version leaves")


class RegisterFromLakefs(_Registration):
    """A commit to register."""

    registered_name: Name = Field(examples=["gemma-2b-translator"])
    task: Name = Field(examples=["text-generation"])
    engine: Text | None = Field(None, description="none: the one that can load it")
    lakefs_repo: Name
    commit_id: Name


class RegisterOllama(_Registration):
    """A model of Ollama's to register."""

    local_model_name: Name = Field(description="its name in Ollama, with the tag", examples=["qwen3:1.7b"])
    task: Name = Field(examples=["text-generation"])
    registered_name: Name | None = Field(None, description="none: local_model_name")


class Transition(Body):
    """A version to move to a stage."""

    model_name: Name
    version: Annotated[str, Field(coerce_numbers_to_str=True, min_length=1, max_length=20)] = Field(examples=["1"])
    stage: Name = Field(examples=["production"])
    archive_existing_versions: bool = False
    allow_downtime: bool = Field(False, description="unload the old version first where both do not fit")


class JobBody(BaseModel):
    """A job: sizes in bytes, times in seconds since 1970."""

    id: str
    kind: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float | None
    eta_seconds: float | None
    progress: float | None = Field(description="0 to 1")
    created_at: float
    finished_at: float | None
    result: dict[str, Any] | None
    error: str | None
    error_type: str | None
