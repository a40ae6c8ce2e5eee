"""PageReader: the words of pages that have no text layer, read by the configured OCR (`media.ocr`).

It is a registered model of task `ocr`, or the program Tesseract where that is installed.
"""

import asyncio
import io
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from src.core.errors import InferenceTimeoutError, InvalidInputError, ModelNotFoundError
from src.core.settings_sections import MediaSettings
from src.core.threads import in_thread
from src.inference.types import Answer, InferenceRequest, JsonObject

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TESSERACT = "tesseract"
NONE = "none"
Word = tuple[str, Sequence[int]]


class PageReader:
    """Reads pages; `execute` answers a request as the executor of its task does."""

    def __init__(self, settings: MediaSettings, execute: Callable[[InferenceRequest], Awaitable[Answer]]) -> None:
        self._settings = settings
        self._execute = execute

    async def fill(self, document: JsonObject, field: str) -> None:
        """Gives each page of a decoded document that has a picture and no text layer its words, boxes and `ocr`.

        Raises `InvalidInputError` where no OCR is configured, or the configured one is not there.
        """
        import numpy as np

        pages = [page for page in document["pages"] if not page["has_text"] and page["image"] is not None]
        if not pages:
            return
        if self._settings.ocr in ("", NONE):
            raise _no_ocr(field, "no OCR is configured")
        for page in pages:
            words, source = await self._read(page["image"], field)
            page["words"] = [text for text, _ in words]
            page["boxes"] = np.array([box for _, box in words], dtype=np.int32).reshape(-1, 4)
            page["ocr"] = source

    async def _read(self, picture: "NDArray[np.uint8]", field: str) -> tuple[list[Word], JsonObject]:
        if self._settings.ocr == TESSERACT:
            return await self._tesseract(picture, field)
        name = self._settings.ocr
        request = InferenceRequest(
            "ocr", "transformers", name, {"image": picture}, {"segmentation": "words"}, uuid.uuid4().hex, trusted=True
        )
        try:
            answer = await self._execute(request)
        except ModelNotFoundError as exc:
            raise _no_ocr(field, f"the configured OCR model '{name}' is not registered") from exc
        height, width = picture.shape[:2]
        words = answer.result.get("words", [])
        found: list[Word] = [
            (word["text"], _scaled(word["box"], width, height)) for word in words if word["text"].strip()
        ]
        made_by = answer.provenance
        return found, {
            "model": made_by.registered_name,
            "version": made_by.version,
            "commit": made_by.commit,
            "digest": made_by.digest,
        }

    async def _tesseract(self, picture: "NDArray[np.uint8]", field: str) -> tuple[list[Word], JsonObject]:
        program = shutil.which(TESSERACT)
        if program is None:
            raise _no_ocr(field, "media.ocr is 'tesseract', and that program is not installed")
        process = await asyncio.create_subprocess_exec(
            program,
            *("stdin", "stdout", "tsv"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/bin:/bin", "OMP_THREAD_LIMIT": "1", "LC_ALL": "C.UTF-8"},
        )
        seconds = self._settings.decode_timeout
        try:
            async with asyncio.timeout(seconds):
                table, errors = await process.communicate(await in_thread(partial(_netpbm, picture)))
        except TimeoutError as exc:
            raise InferenceTimeoutError(
                f"`{field}`: Tesseract took longer than {seconds:g} s for a page (media.decode_timeout)"
            ) from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            words = errors.decode("utf-8", "replace").strip()[-300:]
            raise _no_ocr(field, f"Tesseract failed ({process.returncode}): {words}")
        height, width = picture.shape[:2]
        return table_words(table.decode("utf-8", "replace"), width, height), {"model": TESSERACT}


def table_words(table: str, width: int, height: int) -> list[Word]:
    """Returns the words of Tesseract's TSV with their boxes, the page spanning 0 to 1000 both ways."""
    header, *rows = [line.split("\t") for line in table.splitlines() if line] or [[]]
    found: list[Word] = []
    for row in rows:
        cell = dict(zip(header, row, strict=False))
        if cell.get("level") != "5" or not cell.get("text", "").strip():
            continue
        left, top, wide, high = (int(cell[name]) for name in ("left", "top", "width", "height"))
        found.append((cell["text"].strip(), _scaled((left, top, left + wide, top + high), width, height)))
    return found


def _scaled(box: Sequence[int], width: int, height: int) -> list[int]:
    """Returns a box in pixels with the page spanning 0 to 1000 both ways."""
    return [min(1000, max(0, round(1000 * edge / (width, height)[place % 2]))) for place, edge in enumerate(box)]


def _netpbm(picture: "NDArray[np.uint8]") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PPM")
    return file.getvalue()


def _no_ocr(field: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"`{field}`: the page has no text layer and the model needs its words, but {why}. Set media.ocr "
        "(AIML_MEDIA__OCR) to a registered model of task 'ocr', or install Tesseract and set it to 'tesseract'",
        details={"field": field, "setting": "media.ocr"},
    )
