"""The demo models of this repository, registered into a new data folder."""

import logging
from pathlib import Path
from typing import Any

import yaml

from src.core.config import ROOT
from src.core.errors import PlatformError
from src.core.model_manager import ModelManager

logger = logging.getLogger(__name__)

MANIFEST = ROOT / "samples" / "samples.yaml"
MARKER = "samples-registered"


def register_samples(models: ModelManager) -> list[str]:
    """Commits, registers and stages the demo models, once per data folder; returns their names.

    Only a new data folder with the embedded registry gets them: a demo model that somebody deleted
    does not come back.
    """
    settings = models.settings
    marker = settings.data_dir / MARKER
    if settings.samples == "off" or marker.exists() or not settings.registry_is_embedded or not MANIFEST.is_file():
        return []
    samples: list[dict[str, Any]] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    names = [str(sample["name"]) for sample in samples]
    try:
        known = {version.name for version in models.registry.list_models(show_all=True)}
        if known - set(names):
            return []  # somebody's registry: not new, though nobody marked it
        for sample in samples:
            if sample["name"] not in known:
                _register(models, sample)
    except PlatformError as exc:
        logger.error("the demo models could not be registered: %s", exc)
        return []
    marker.touch()
    logger.info("demo models registered", extra={"models": names})
    return names


def _register(models: ModelManager, sample: dict[str, Any]) -> None:
    folder: Path = MANIFEST.parent / sample["path"]
    models.register_model_to_mlflow(
        model_name=sample["name"],
        model_source="sample",
        model_path=folder,
        tags={"task": sample["task"], "engine": sample["engine"]},
        description=sample.get("description", ""),
        stage="production",
    )
