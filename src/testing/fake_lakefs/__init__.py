"""A fake lakeFS server: HTTP on a real socket, with state, proven against recordings of a real one.

with FakeLakefs() as server:
    client = lakefs.Client(
        host=server.url, username=server.access_key_id, password=server.secret_access_key
    )
    ...
    assert server.requests[-1].operation == "commit"
"""

from src.testing.fake_lakefs.connection import ReceivedRequest
from src.testing.fake_lakefs.errors import ApiError
from src.testing.fake_lakefs.server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, FakeLakefs

__all__ = ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ApiError", "FakeLakefs", "ReceivedRequest"]
