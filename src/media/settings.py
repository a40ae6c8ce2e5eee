"""The bounds of media: how large, how long, how many, and how much the decoders may take."""

from pydantic import Field

from src.core.config import Section


class MediaSettings(Section):
    max_mb: float = Field(256.0, gt=0, description="largest audio, video or document, in MB")
    max_image_mb: float = Field(32.0, gt=0, description="largest image file, in MB")
    # Pillow's own bound: a quarter of a GiB of RGB.
    max_pixels: int = Field(89_478_485, ge=1, description="pixels of an image; of a video's or document's, together")
    max_audio_seconds: float = Field(3600.0, gt=0, description="longest audio")
    max_video_seconds: float = Field(600.0, gt=0, description="longest video")
    max_video_frames: int = Field(64, ge=1, description="frames taken from one video")
    max_inputs: int = Field(16, ge=1, description="images of one request")
    max_pdf_pages: int = Field(50, ge=1, description="pages read of one document")
    decode_timeout: float = Field(30.0, gt=0, description="seconds one decoding may take")
    fetch_timeout: float = Field(20.0, gt=0, description="seconds for fetching one URL, redirects included")
    max_fetches: int = Field(8, ge=1, description="URLs fetched, or fetched and not decoded yet, at the same time")
    workers: int = Field(2, ge=1, description="decoder processes at the same time")
    max_waiting: int = Field(64, ge=1, description="decodings that may wait for a decoder process")
    memory_mb: int = Field(1024, ge=64, description="memory that a decoder process may take, in MiB")
    idle_seconds: float = Field(60.0, gt=0, description="seconds after which an idle decoder process ends")

    def max_bytes(self, kind: str) -> int:
        """Returns the largest file of a kind, in bytes."""
        return int((self.max_image_mb if kind == "image" else self.max_mb) * 1_000_000)
