"""Handlers, one file per task. A handler class imported here is registered under its task.

Built-ins enter by this door like anybody's own:

    from src.inference.models.custom_task import CustomTaskHandler
"""

from src.inference.models.text_generation import TextGenerationHandler

__all__ = ["TextGenerationHandler"]
