"""The engine that asks an Ollama server."""

from src.inference.engines.ollama.engine import OllamaEngine

__all__ = ["OllamaEngine"]
