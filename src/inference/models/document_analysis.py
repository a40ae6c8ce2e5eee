"""Document analysis: `{"document": …, "query": str}` → `{"answer": str, "score", "page", "box", "metadata"}`."""

from collections.abc import Mapping
from typing import Any, ClassVar

from src.core.errors import InvalidInputError
from src.inference.models.base import BaseModelHandler, MediaField, draws_nothing
from src.inference.types import JsonObject


class DocumentAnalysisHandler(BaseModelHandler):
    """Takes a document (PDF, picture, or a list of pictures of pages) and a question about it."""

    task = "document-analysis"
    required_fields = ("document", "query")
    media: ClassVar[Mapping[str, MediaField]] = {"document": MediaField("document")}

    @classmethod
    def media_wishes(cls, field: str, options: JsonObject, facts: JsonObject) -> JsonObject:
        """Returns the pages asked for by option `pages`, with their words if the model reads any."""
        # Pictures always: what sees none needs them read where a page has no text layer.
        wishes: JsonObject = {"words": bool(facts.get("needs_words", True)), "images": True}
        wishes |= {"pages": options["pages"]} if options.get("pages") else {}
        return wishes | ({"dpi": facts["dpi"]} if facts.get("dpi") else {})

    @classmethod
    def deterministic(cls, options: JsonObject) -> bool:
        """Whether nothing is drawn at random: it is not unless the caller asks for it."""
        return draws_nothing(options, samples=False)

    def preprocess(self, data: JsonObject, options: JsonObject) -> JsonObject:
        """Returns the question beside the decoded pages."""
        self.validate_input(data, self.required_fields)
        document = data["document"]
        inputs = {"query": data["query"], "pages": document["pages"], "page_count": document["page_count"]}
        return {"inputs": inputs, "options": options}

    def validate_input(self, data: Any, required: Any) -> None:
        """Raises `InvalidInputError` unless there are a document and a question."""
        super().validate_input(data, required)
        query = data["query"]
        if not isinstance(query, str):
            raise InvalidInputError(
                f"Invalid input format: field 'query' must be a text, not {type(query).__name__}",
                details={"field": "query"},
            )
        if not query.strip():
            raise InvalidInputError(
                "Invalid input format: field 'query' is empty: ask something about the document",
                details={"field": "query"},
            )

    def postprocess(self, result: Any, options: JsonObject) -> JsonObject:
        """Returns `answer`, `score` (0 to 1), `page` (the first is 0), `box` (thousandths of the page), `metadata`.

        `score`, `page` and `box` are None where the model does not tell.
        """
        return {
            "answer": result["response"],
            "score": result.get("score"),
            "page": result.get("page"),
            "box": result.get("box"),
            "metadata": result["metadata"],
        }
