"""The engine that runs Hugging Face Transformers models from local folders."""

from src.inference.engines.transformers.engine import TransformersEngine

__all__ = ["TransformersEngine"]
