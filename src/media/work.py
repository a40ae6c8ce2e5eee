"""One decoding, as the pool sees it: what the process is asked, and what its answer means."""

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import orjson

from src.core.errors import InvalidInputError, PayloadTooLargeError, PlatformError
from src.core.threads import in_thread
from src.media.content import Content, map_arrays
from src.media.decoded import Decoded, assemble
from src.media.job import unusable
from src.media.process import Reply
from src.media.wire import BrokenMessageError
from src.media.wishes import Wishes, as_json

_IN_LOOP_BYTES = 1 << 20
_ERRORS: dict[str, type[PlatformError]] = {kind.__name__: kind for kind in (InvalidInputError, PayloadTooLargeError)}


@dataclass(eq=False)
class Work:
    """One decoding; `timer` runs once a process has it."""

    kind: str
    content: Content
    type: str
    wishes: Wishes
    timer: asyncio.Timeout | None = None

    def request(self, seconds: float) -> dict[str, Any]:
        """Returns what a decoder process is told; the content's descriptor goes beside it."""
        return {
            "kind": self.kind,
            "type": self.type,
            "field": self.content.field,
            "size": self.content.size,
            "wishes": as_json(self.wishes),
            "seconds": seconds,
        }

    def refused(self, problem: str) -> InvalidInputError:
        """Returns the error for an input that cannot be decoded."""
        return unusable(self.kind, self.type, self.content.field, problem)

    async def result(self, reply: Reply, most: int) -> Decoded:
        """Returns what a process answered, or raises the error that it met; the reply's descriptors are closed.

        `most`: bytes of arrays. Raises `BrokenMessageError` where the answer is none: then the process is not what
        it was any more.
        """
        message, descriptors = reply
        try:
            if "error" in message:
                raise _ERRORS[message["error"]](str(message["message"]), details=dict(message["details"]))
            *arrays, facts = map_arrays(descriptors[0], message["places"], most)
            return assemble(self.kind, arrays, await _parsed(facts))
        except PlatformError:
            raise
        except (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, OSError) as exc:
            raise BrokenMessageError(f"it gave no proper answer: {exc}") from exc
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


async def _parsed(facts: Any) -> Any:
    # A copy: the other process can still write where they lie, and a parser must not see them change.
    text = facts.tobytes()
    return orjson.loads(text) if len(text) < _IN_LOOP_BYTES else await in_thread(lambda: orjson.loads(text))
