"""A server with one repository, and the official clients for it."""

from collections.abc import Iterator

import lakefs
import lakefs_sdk
import pytest
from lakefs_sdk.client import LakeFSClient

from src.testing.fake_lakefs import FakeLakefs


@pytest.fixture
def server() -> Iterator[FakeLakefs]:
    with FakeLakefs(deletion_seconds=0.2) as server:
        yield server


@pytest.fixture
def client(server: FakeLakefs) -> Iterator[lakefs.Client]:
    made = lakefs.Client(host=server.url, username=server.access_key_id, password=server.secret_access_key)
    yield made
    made.sdk_client.objects_api.api_client.rest_client.pool_manager.clear()


@pytest.fixture
def repository(client: lakefs.Client) -> lakefs.Repository:
    return lakefs.Repository("models", client).create("local://models")


@pytest.fixture
def main(repository: lakefs.Repository) -> lakefs.Branch:
    return repository.branch("main")


@pytest.fixture
def sdk(server: FakeLakefs) -> Iterator[LakeFSClient]:
    configuration = lakefs_sdk.Configuration(
        host=f"{server.url}/api/v1", username=server.access_key_id, password=server.secret_access_key
    )
    made = LakeFSClient(configuration)
    yield made
    made.objects_api.api_client.rest_client.pool_manager.clear()
