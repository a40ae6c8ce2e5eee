"""W2: a classifier of ResNet-50's size and JPEG pictures of 224×224, against the same model in a tight loop."""

from functools import partial
from typing import Any

from benchmarks.bench import Bench, Unit
from benchmarks.comparing import Pair, interleaved
from benchmarks.direct.pipe import Direct, direct
from benchmarks.models import inputs
from benchmarks.peers.catalogue import Peer, serving_task
from benchmarks.registering import register
from benchmarks.serving import Server, ours

PATH = "/inference/infer"
NAME = "resnet"
RATE = "requests_per_second"
BATCHES = (2, 4, 8, 16)
_WARMUP = 1.0
_LONGER = 3
"""How many times longer the callers of a batch are watched: their answers come a second apart, and the first batch of
its size is the slowest."""
_LIMIT = "benchmarks.direct.classify"


def units(bench: Bench) -> list[Unit]:
    """Returns the service and the peers."""
    return [
        Unit("ours", _seconds(bench) + 30, partial(_ours, bench)),
        *(
            Unit(peer.title, _seconds(bench.shorter()) + peer.start_seconds + 8, partial(_peer, bench.shorter(), peer))
            for peer in serving_task(bench, "classify")
        ),
    ]


def _seconds(bench: Bench) -> float:
    return bench.rounds * ((1 + _LONGER) * (2 * bench.seconds + _WARMUP) + 2)


def _ours(bench: Bench) -> dict[str, Any]:
    pictures = inputs(bench.models, "images")
    with ours(bench.fresh("w2")) as server, direct(_LIMIT, str(bench.models)) as limit:
        register(server, NAME, bench.models / "resnet", "image-classification", "transformers")
        best = best_loop(bench, limit)
        seen = limit.ask("expected", channels_last=best["channels_last"])["answers"]
        for picture, expected in zip(pictures, seen, strict=True):
            answer = server.post(PATH, _body(picture))
            if answer.get("success") is not True or abs(answer["result"]["scores"][0] - expected["score"]) > 1e-3:
                raise RuntimeError(f"{answer}, not {expected}")
        made_by = {name: answer["provenance"][name] for name in ("device", "dtype", "version")}
        return {"provenance": made_by, **_beside(bench, server, PATH, [_body(p) for p in pictures], limit, best)}


def _body(picture: str) -> dict[str, Any]:
    data, options = {"image": picture}, {"top_k": 1}
    return {
        "task": "image-classification",
        "engine": "transformers",
        "model_name": NAME,
        "data": data,
        "options": options,
    }


def _peer(bench: Bench, peer: Peer) -> dict[str, Any]:
    with direct(_LIMIT, str(bench.models)) as limit:
        best = best_loop(bench, limit)
        layout = best["channels_last"]
        calls = [peer.call("classify", picture) for picture in inputs(bench.models, "images")]
        with peer.running("classify", bench, channels_last=layout) as server:
            for call, expected in zip(calls, limit.ask("expected", channels_last=layout)["answers"], strict=True):
                peer.check(server, call, expected)
            bodies = [call.body for call in calls]
            return {"version": peer.version, **_beside(bench, server, calls[0].path, bodies, limit, best)}


def best_loop(bench: Bench, limit: Direct) -> dict[str, Any]:
    """Returns the memory format and the batch with which the limit is fastest, found once in a run, and all tries."""

    def find() -> dict[str, Any]:
        formats = [limit.ask("loop", batch=1, seconds=1.5, channels_last=layout) for layout in (True, False)]
        layout = max(formats, key=_rate)["channels_last"]
        tries = [limit.ask("loop", batch=batch, seconds=2.0, channels_last=layout) for batch in BATCHES]
        return {"channels_last": layout, "batch": max(tries, key=_rate)["batch"], "tries": [*formats, *tries]}

    return bench.once("W2 best loop", find)


def _rate(found: dict[str, Any]) -> float:
    return float(found[RATE])


def _beside(
    bench: Bench, server: Server, path: str, bodies: list[Any], limit: Direct, best: dict[str, Any]
) -> dict[str, Any]:
    def pair(concurrency: int, batch: int) -> Pair:
        longer = _LONGER if concurrency > 1 else 1
        seconds = bench.seconds * longer
        plan = {"concurrency": concurrency, "seconds": seconds, "warmup": _WARMUP * longer}
        loop = {"batch": batch, "seconds": seconds, "channels_last": best["channels_last"]}
        return Pair(lambda: server.load(path, bodies, **plan), RATE, lambda: limit.ask("loop", **loop))

    pairs = {"c1": pair(1, 1), "c16": pair(16, best["batch"])}
    return {"limit": best, **interleaved(pairs, bench.rounds)}
