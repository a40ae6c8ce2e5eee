"""A fake lakeFS server: HTTP on a real socket, with state, proven against recordings of a real one.

    with FakeLakefs() as server:
        client = lakefs.Client(
            host=server.url, username=server.access_key_id, password=server.secret_access_key
        )
        ...
        assert server.requests[-1].operation == "commit"

`python -m src.testing.fake_lakefs` serves it from the command line. Uploads go to temporary files and downloads
come from them; all else is in memory and ends with the server. Faults are asked for by operation, by the names
of lakeFS's own API: `fail`, `cut_request`, `cut_answer`, `lose_answer`, `delay`, `corrupt`.

Beyond the recordings it follows lakeFS's published source: what makes two objects the same (size, checksum,
content type, user metadata), which name a reference finds first, the order of a log, the merge base, three-way
merges and their strategies, squashing, staging areas (`main$`), and that a namespace stays taken after its
repository is gone. Ours alone, where neither says it: a page has 100 entries unless asked otherwise; the
deleted repository is still seen for `deletion_seconds`, an empty shell; bodies are checked for missing fields
and wrong types only; the texts of refusals that were not recorded; one lock instead of lakeFS's retries, so
that it never answers "too many attempts".

Not here, and refused with a 501 that says so: the S3 gateway, signed addresses and the staging API, imports,
revert and cherry-pick, hooks, branch protection, pull requests, garbage collection, users and policies. Uploads
are POSTs, as both official clients send them and lakeFS wants them.
"""

from src.testing.fake_lakefs.connection import ReceivedRequest
from src.testing.fake_lakefs.errors import ApiError
from src.testing.fake_lakefs.server import ACCESS_KEY_ID, SECRET_ACCESS_KEY, FakeLakefs

__all__ = ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "ApiError", "FakeLakefs", "ReceivedRequest"]
