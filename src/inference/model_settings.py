"""What holds for one model: its version's tags over `models` in engines_config.yaml over what holds for all."""

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from src.core.config import Settings
from src.core.settings_sections import ModelSettings
from src.inference.types import ServableModel

logger = logging.getLogger(__name__)


def settings_of(model: ServableModel, settings: Settings) -> ModelSettings:
    """Returns the settings of a model; a tag whose value cannot be is told in the log, and does not count."""
    version = model.registered
    given = settings.models.get(version.name if version else model.name)
    tags = {name: text for name in ModelSettings.model_fields if (text := model.tags.get(name)) is not None}
    if not tags:
        return given or _NOTHING_SET
    own = _from_tags(model.name, tuple(sorted(tags.items())))
    return own if given is None else given.model_copy(update=own.model_dump(exclude_none=True))


_NOTHING_SET = ModelSettings()


@lru_cache(maxsize=1024)
def _from_tags(name: str, tags: tuple[tuple[str, str], ...]) -> ModelSettings:
    values: Mapping[str, Any] = dict(tags)
    while True:
        try:
            return ModelSettings.model_validate(values)
        except ValidationError as exc:
            wrong = {str(error["loc"][0]): error["msg"] for error in exc.errors()}
            for tag, problem in wrong.items():
                logger.warning("tag %s of model %s has no effect: %s", tag, name, problem)
            values = {tag: text for tag, text in values.items() if tag not in wrong}
