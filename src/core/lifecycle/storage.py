"""Which version store the settings name, and what a repository of it is called."""

import re

from src.core.config import Settings
from src.core.stores.base import VersionStore
from src.core.stores.local import LocalStore


def open_store(settings: Settings) -> VersionStore:
    """Returns the version store that the settings name: lakeFS where it has an address, else the embedded one."""
    lakefs = settings.lakefs
    if not lakefs.endpoint:
        return LocalStore(settings.data_dir / "store")
    from src.core.stores.lakefs import LakefsStore

    return LakefsStore(
        lakefs.endpoint,
        lakefs.access_key_id,
        lakefs.secret_access_key.get_secret_value(),
        cache_dir=settings.data_dir / "lakefs-cache",
        namespace_prefix=lakefs.storage_namespace,
        verify_ssl=lakefs.verify_ssl,
    )


def repo_for(model_name: str) -> str:
    """Returns a repository name made from a model's, as every store takes it: lower case, other characters as `-`."""
    name = re.sub(r"[^a-z0-9-]+", "-", model_name.lower()).strip("-")
    return (name or "model").ljust(3, "0")[:60]
