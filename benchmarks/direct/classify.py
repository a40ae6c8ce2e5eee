"""`python -m benchmarks.direct.classify MODELS`: the limit of W2, the classifier in a tight loop."""

import itertools
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.direct.classifier import Classifier
from benchmarks.direct.pipe import serve
from benchmarks.models import inputs


class Limit:
    """Answers questions about one model in both memory formats."""

    def __init__(self, folder: Path) -> None:
        self._images = inputs(folder, "images")
        path = str(folder / "resnet")
        self._classifiers = {layout: Classifier(path, channels_last=layout) for layout in (False, True)}

    def loop(self, batch: int, seconds: float, channels_last: bool) -> dict[str, Any]:
        """Classifies for so many seconds, and once before that is not counted."""
        classify, images = self._classifiers[channels_last], itertools.cycle(self._images)
        classify(list(itertools.islice(images, batch)))
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            count += len(classify(list(itertools.islice(images, batch))))
        return {
            "requests_per_second": count / passed,
            "requests": count,
            "batch": batch,
            "channels_last": channels_last,
        }

    def expected(self, channels_last: bool) -> dict[str, Any]:
        """Returns what is seen in every picture."""
        return {"answers": [self._classifiers[channels_last]([image])[0] for image in self._images]}


if __name__ == "__main__":
    limit = Limit(Path(sys.argv[1]))
    serve({"loop": limit.loop, "expected": limit.expected})
