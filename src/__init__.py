"""AI model lifecycle and unified inference platform."""

__version__ = "0.1.0"
