"""The application: which endpoint answers what."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from src.testing.fake_ollama.completions import Completions
from src.testing.fake_ollama.errors import ApiError
from src.testing.fake_ollama.generation import Generator
from src.testing.fake_ollama.library import Library
from src.testing.fake_ollama.openai import OpenAi
from src.testing.fake_ollama.pulling import Pulling
from src.testing.fake_ollama.store import Store
from src.testing.fake_ollama.wire import error_answer, json_answer


def create_app(store: Store, generator: Generator, pulling: Pulling, version: str) -> Starlette:
    """Builds the application over what it serves from."""
    library = Library(store, generator.scheduler)
    completions = Completions(store, generator)
    openai = OpenAi(store, generator)

    async def root(request: Request) -> Response:
        return PlainTextResponse("Ollama is running")

    async def tell_version(request: Request) -> Response:
        return json_answer({"version": version})

    reads = {
        "/": root,
        "/api/version": tell_version,
        "/api/tags": library.tags,
        "/api/ps": library.ps,
        "/v1/models": openai.models,
    }
    posts = {
        "/api/generate": completions.generate,
        "/api/chat": completions.chat,
        "/api/embed": completions.embed,
        "/api/embeddings": completions.embeddings,
        "/api/show": library.show,
        "/api/create": library.create,
        "/api/copy": library.copy,
        "/api/pull": pulling.pull,
        "/v1/chat/completions": openai.chat_completions,
    }
    routes = [Route(path, endpoint) for path, endpoint in reads.items()]
    routes += [Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()]
    routes += [
        Route("/api/delete", library.delete, methods=["DELETE"]),
        Route("/api/blobs/{digest}", library.has_blob, methods=["HEAD"]),
    ]
    return Starlette(routes=routes, exception_handlers={ApiError: _refused, 404: _no_page, 405: _no_method})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_answer(error)


async def _no_page(request: Request, error: Exception) -> Response:
    return PlainTextResponse("404 page not found", 404)


async def _no_method(request: Request, error: Exception) -> Response:
    return PlainTextResponse("405 method not allowed", 405)
