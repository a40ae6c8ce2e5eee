"""Endpoints about the server itself."""

import time

from src.testing.fake_lakefs.asks import Ask
from src.testing.fake_lakefs.wire import NO_CONTENT, Answer, json_answer

USER = "admin"
VERSION = {"version": "dev", "version_context": "lakeFS"}
STORAGE = {
    "blockstore_description": "",
    "blockstore_id": "",
    "blockstore_namespace_ValidityRegex": "^local://",
    "blockstore_namespace_example": "local://example-bucket/",
    "blockstore_type": "local",
    "default_namespace_prefix": "local://",
    "import_support": False,
    "import_validity_regex": "^local://",
    "pre_sign_multipart_upload": False,
    "pre_sign_support": False,
    "pre_sign_support_ui": False,
}


class ServerApi:
    """Health, configuration, and who is asking."""

    def __init__(self) -> None:
        self._created = int(time.time())

    def health(self, ask: Ask) -> Answer:
        """Says that the server lives; needs no credentials."""
        return NO_CONTENT

    def config(self, ask: Ask) -> Answer:
        """Describes a server over a folder, which cannot sign addresses."""
        return json_answer(
            {
                "capabilities_config": {},
                "storage_config": STORAGE,
                "storage_config_list": [],
                "ui_config": {},
                "version_config": VERSION,
            }
        )

    def version(self, ask: Ask) -> Answer:
        """Tells the version."""
        return json_answer(VERSION)

    def user(self, ask: Ask) -> Answer:
        """Tells who is asking."""
        user = {"creation_date": self._created, "email": "", "friendly_name": "", "id": USER}
        return json_answer({"user": user})
