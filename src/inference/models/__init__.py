"""Handlers, one file per task. A handler class imported here is registered under its task.

Built-ins enter by this door like anybody's own:

    from src.inference.models.custom_task import CustomTaskHandler
"""

from src.inference.models.asr import AsrHandler
from src.inference.models.audio_classification import AudioClassificationHandler
from src.inference.models.document_analysis import DocumentAnalysisHandler
from src.inference.models.image_classification import ImageClassificationHandler
from src.inference.models.ocr import OcrHandler
from src.inference.models.text_generation import TextGenerationHandler
from src.inference.models.video_analysis import VideoAnalysisHandler
from src.inference.models.vlm import VlmHandler

__all__ = [
    "AsrHandler",
    "AudioClassificationHandler",
    "DocumentAnalysisHandler",
    "ImageClassificationHandler",
    "OcrHandler",
    "TextGenerationHandler",
    "VideoAnalysisHandler",
    "VlmHandler",
]
