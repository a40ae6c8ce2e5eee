"""Refusals that several parts of this layer make, in one wording."""

from src.core.errors import PayloadTooLargeError


def too_many_bytes(kind: str, field: str, size: int | None, bound: int) -> PayloadTooLargeError:
    """Returns the error for a file past its bound; `size` None: it was not read to its end."""
    setting = "max_image_mb" if kind == "image" else "max_mb"
    how_large = "is larger than that" if size is None else f"has {size / 1e6:,.1f} MB"
    return PayloadTooLargeError(
        f"`{field}`: an input of kind {kind} may have {bound / 1e6:g} MB (media.{setting}), and this one {how_large}",
        details={"field": field, "setting": f"media.{setting}", "limit": bound, "size": size},
    )
