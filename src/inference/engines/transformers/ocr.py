"""OCR: text read off pictures, by recognisers, by models with a mode for it, and by any that can be asked."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from src.inference.engines.transformers.ocr_asked import AskedOcr, FlorenceOcr
from src.inference.engines.transformers.ocr_lines import LineOcr, WriterOcr
from src.inference.engines.transformers.ocr_reading import ReadingRunner

__all__ = ["LineOcr", "OcrRunner"]

_SPECIAL: dict[str, type[ReadingRunner]] = {"vision-encoder-decoder": WriterOcr, "florence2": FlorenceOcr}


class OcrRunner:
    """Loads a folder as the runner of its architecture."""

    @classmethod
    def load(cls, name: str, path: Path, **kwargs: Any) -> ReadingRunner:
        """Loads a folder."""
        config = AutoConfig.from_pretrained(
            path, local_files_only=True, trust_remote_code=kwargs.get("trust_remote_code", False)
        )
        return _SPECIAL.get(config.model_type, AskedOcr).load(name, path, **kwargs)
