"""Provenance is true: recomputed here from the store's blobs, without the store's own code."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import manager_of
from tests.service import Service


def stored_commit(data_dir: Path, repo: str, commit: str) -> dict[str, Any]:
    """Returns a commit's record, its blobs hashed again and compared with their names."""
    raw = (data_dir / "store" / "repos" / repo / "commits" / f"{commit}.json").read_bytes()
    record: dict[str, Any] = json.loads(raw)
    for _, sha256, size in record["files"]:
        blob = (data_dir / "store" / "blobs" / "sha256" / sha256[:2] / sha256).read_bytes()
        assert (hashlib.sha256(blob).hexdigest(), len(blob)) == (sha256, size)
    return record


def recomputed(record: dict[str, Any]) -> tuple[str, str]:
    """Returns (commit id, content digest) by the documented formulas."""

    def hashed(value: Any) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    return hashed(record), "sha256:" + hashed(sorted(record["files"]))


def check(service: Service, provenance: dict[str, Any]) -> None:
    repo = provenance["source"].split("/")[2]
    record = stored_commit(service.data_dir, repo, provenance["commit"])
    assert recomputed(record) == (provenance["commit"], provenance["digest"])
    assert provenance["source"] == f"lakefs://{repo}/{provenance['commit']}/"


def test_commit_and_digest_are_those_of_the_bytes_and_change_with_one_byte(
    service: Service, tiny_model: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(tiny_model, changed)
    models = manager_of(service.data_dir)
    tags = {"task": "text-generation", "engine": "transformers"}
    models.register_model_to_mlflow("one-byte", "local", changed, tags, stage="production")
    first = service.infer("one-byte", max_new_tokens=4, seed=1).json()["provenance"]
    check(service, first)

    weights = changed / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    models.register_model_to_mlflow("one-byte", "local", changed, tags, stage="production")
    models.close()
    second = service.infer("one-byte", max_new_tokens=4, seed=1).json()["provenance"]
    check(service, second)
    assert (first["version"], second["version"]) == ("1", "2")
    assert first["commit"] != second["commit"]
    assert first["digest"] != second["digest"]


def test_provenance_names_everything(service: Service) -> None:
    provenance = service.infer("tiny", max_new_tokens=1).json()["provenance"]
    assert provenance["registered_name"] == "tiny"
    assert provenance["version"] == "1"
    assert provenance["alias"] == "production"
    assert provenance["engine"] == "transformers"
    assert provenance["engine_version"].startswith("5.")
    assert provenance["device"] == "cpu"
    assert provenance["dtype"] == "float32"


def test_a_version_asked_by_number_names_no_alias(service: Service) -> None:
    provenance = service.infer("tiny@1", max_new_tokens=1).json()["provenance"]
    assert (provenance["version"], provenance["alias"]) == ("1", None)


@pytest.mark.parametrize("dtype", ["bfloat16", "bf16"])
def test_provenance_names_the_dtype_in_use(service: Service, dtype: str) -> None:
    body = service.infer("tiny", max_new_tokens=1, torch_dtype=dtype).json()
    assert body["provenance"]["dtype"] == "bfloat16"
