"""OCR by models that look and write: asked in their authors' words, or by a task token."""

from collections.abc import Mapping, Sequence
from functools import partial

from src.inference.engines.transformers.answer_pieces import AnswerPieces, told
from src.inference.engines.transformers.attempts import attempted
from src.inference.engines.transformers.florence import ocr_lines, plain_text
from src.inference.engines.transformers.generation import EXACT
from src.inference.engines.transformers.ocr_reading import Asked, ReadingRunner
from src.inference.engines.transformers.recognition import Pixels
from src.inference.engines.transformers.vision_language import Question, VisionLanguageRunner
from src.inference.models.ocr import BETWEEN_PICTURES
from src.inference.types import JsonObject

_ASK = "Read the text in this picture. Answer with the text alone, line by line."
_WORDS: Mapping[str, str] = {
    "deepseek_ocr2": "Free OCR.",
    "glm_ocr": "Text Recognition:",
    # Its processor leaves a space where a colour or a box may be named.
    "got_ocr2": " OCR: ",
    "granite_docling": "Convert this page to docling.",
    "hunyuan_vl": "Extract the text in the image.",
    "kosmos-2.5": "<ocr>",
    "paddleocr_vl": "OCR:",
    "paligemma": "ocr",
    "pp_formulanet": "",
    "unlimited_ocr": "Free OCR.",
}
"""Model type → the words that its authors ask for text with."""
_REGIONS = "<OCR_WITH_REGION>"


class AskedOcr(ReadingRunner, VisionLanguageRunner):
    """A model that is asked for the text, in its authors' words unless the request has others."""

    defaults = EXACT
    skips_marks = True
    """Whether special tokens are left out of what the model writes."""

    def read(self, images: Sequence[Pixels], prompt: str | None, options: JsonObject) -> list[JsonObject]:
        """Asks about one picture after the other."""
        pages, pieces = list[JsonObject](), told()
        for image in images:
            before = [page["text"] for page in pages]
            said = partial(_tell, pieces, before) if pieces is not None and self.tells else None
            raw = self.answer(self._question(image, prompt), options, skip_special_tokens=self.skips_marks, said=said)
            pages.append(self._page(raw, image, prompt))
        if pieces is not None:
            pieces.finish(BETWEEN_PICTURES.join(page["text"] for page in pages))
        return pages

    def read_together(self, requests: Sequence[Asked], options: JsonObject) -> list[list[JsonObject] | Exception]:
        """Asks about all pictures of all requests."""
        asked = [(image, prompt) for images, prompt in requests for image in images]
        raws = self.answers([self._question(*each) for each in asked], options, skip_special_tokens=self.skips_marks)
        pages = iter(
            raw if isinstance(raw, Exception) else attempted(self._page, raw, *each)
            for raw, each in zip(raws, asked, strict=True)
        )
        return [attempted(_all_of, [next(pages) for _ in images]) for images, _ in requests]

    @property
    def tells(self) -> bool:
        """Whether what the model writes is the text as it is."""
        return self.skips_marks and self.kind != "pp_formulanet"

    def _question(self, image: Pixels, prompt: str | None) -> Question:
        return Question(_WORDS.get(self.kind, _ASK) if prompt is None else prompt, [image])

    def _page(self, raw: JsonObject, image: Pixels, prompt: str | None) -> JsonObject:
        text = raw["response"]
        if self.kind == "pp_formulanet":
            text = self.processor.post_process_generation(text)
        return {"text": text.strip(), "metadata": raw["metadata"], "warnings": raw["warnings"]}


class FlorenceOcr(AskedOcr):
    """Florence-2: a task token asks for the lines and where they are."""

    skips_marks = False

    def _question(self, image: Pixels, prompt: str | None) -> Question:
        return Question(prompt or _REGIONS, [image])

    def _page(self, raw: JsonObject, image: Pixels, prompt: str | None) -> JsonObject:
        page = {"text": plain_text(self.processor, raw["response"]), "metadata": raw["metadata"]}
        if (prompt or _REGIONS) == _REGIONS:
            height, width = image.shape[:2]
            page["lines"] = ocr_lines(self.processor, raw["response"], (width, height))
            page["text"] = "\n".join(line["text"] for line in page["lines"]) or page["text"]
        return {**page, "warnings": raw["warnings"]}


def _tell(pieces: AnswerPieces, before: Sequence[str], text: str) -> None:
    """Tells the text so far: of the pictures before, and of the one that is read."""
    pieces.upto(BETWEEN_PICTURES.join([*before, text]))


def _all_of(pages: Sequence[JsonObject | Exception]) -> list[JsonObject]:
    """Returns the pages of one request; raises the error that one of them met."""
    found = list[JsonObject]()
    for page in pages:
        if isinstance(page, Exception):
            raise page
        found.append(page)
    return found
