"""The version store on a lakeFS server, through its official client, which is imported at the first call."""

from src.core.stores.lakefs.store import LakefsStore

__all__ = ["LakefsStore"]
