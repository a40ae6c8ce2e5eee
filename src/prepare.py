"""Prepares a new data folder before the service starts: the registry's schema and the demo models."""

import logging

from src.core import logs
from src.core.config import load_env_file
from src.core.errors import PlatformError
from src.core.model_manager import model_manager
from src.core.samples import register_samples


def main() -> None:
    """Does what the service would otherwise do behind its first answers."""
    load_env_file()
    try:
        logs.configure(model_manager.settings)
        register_samples(model_manager)
        model_manager.close()
    except PlatformError as exc:
        # Not fatal: the service says in its health what is wrong.
        logging.getLogger(__name__).warning("%s", exc)


if __name__ == "__main__":
    main()
