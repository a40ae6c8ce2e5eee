"""What a decoder gets and gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.settings_sections import MediaSettings
from src.media.detection import accepted_in_words, details
from src.media.wishes import Wishes

Answer = tuple[Sequence[Any], dict[str, Any]]
"""Arrays (or `content.Pieces`), and the facts that `decoded.assemble` wants with them."""


@dataclass(frozen=True, slots=True)
class Job:
    """One input: a readable, seekable file of the detected type, for a field of a request."""

    source: BinaryIO
    kind: str
    type: str
    field: str
    wishes: Wishes
    settings: MediaSettings

    def invalid(self, problem: str) -> InvalidInputError:
        """Returns the error for an input that cannot be used; `problem` goes on after the field and the type."""
        return unusable(self.kind, self.type, self.field, problem)

    def too_large(self, problem: str, setting: str, bound: float) -> PayloadTooLargeError:
        """Returns the error for an input past one of the bounds."""
        return PayloadTooLargeError(
            f"`{self.field}` ({self.type}) {problem}; at most {bound:,.10g} are taken (media.{setting})",
            details={**details(self.field, self.type, self.kind), "setting": f"media.{setting}", "limit": bound},
        )

    def check_pixels(self, width: int, height: int) -> None:
        """Raises for a picture without pixels, or with more than `media.max_pixels`."""
        if width < 1 or height < 1:
            raise self.invalid(f"is a picture of {width} x {height} pixels: there is nothing in it")
        if width * height > self.settings.max_pixels:
            problem = f"has {width} x {height} = {width * height:,} pixels"
            raise self.too_large(problem, "max_pixels", self.settings.max_pixels)


def unusable(kind: str, found: str, field: str, problem: str) -> InvalidInputError:
    """Returns the error for an input of a known type that cannot be used."""
    return InvalidInputError(
        f"`{field}` ({found}) {problem}; {accepted_in_words(kind)}", details=details(field, found, kind)
    )
