"""Version stores: versioned model files behind one interface."""

from src.core.stores.base import Commit, Diff, FileEntry, Repo, VersionStore

__all__ = ["Commit", "Diff", "FileEntry", "Repo", "VersionStore"]
