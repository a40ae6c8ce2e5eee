"""The quick rows once more in each number format: the service answers, and nearly as it does in float32."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from src.inference.quantization import QUANTIZED
from tests.architectures.serving import RefusedError, Serving, serving
from tests.architectures.test_quick import QUICK

pytestmark = [
    pytest.mark.slow,
    # A slow path of the library's own image processors on numpy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

# Random weights answer as much at random as they can, so that rounding moves them further than trained ones.
NEAR = {"bfloat16": 0.2, "float16": 0.05, "int8": 0.3, "nf4": 1.0}
"""How far the first number may be from that in float32."""
WITHOUT_LAYERS = ("ResNetForImageClassification",)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A service of these tests."""
    with serving(tmp_path_factory.mktemp("formats")) as running:
        yield running


@pytest.mark.parametrize(("task", "architecture"), QUICK)
def test_every_format_answers(service: Serving, task: str, architecture: str) -> None:
    from tests.architectures.rows import cases

    (case,) = [case for case in cases(task, quick=True) if case.architecture == architecture]
    options = dict(case.options)
    # One model for all formats: not every row's weights come from a seed.
    with service.registered(replace(case, options=options)) as ask:
        exact = ask(case.data())
        for number_format, near in NEAR.items():
            options["torch_dtype"] = number_format
            if architecture in WITHOUT_LAYERS and number_format in QUANTIZED:
                with pytest.raises(RefusedError, match=r"answers 400: .* take float32, bfloat16 or float16"):
                    ask(case.data())
                continue
            found = ask(case.data())
            assert found.answer, number_format
            assert abs(found.numbers[0] - exact.numbers[0]) < near, number_format
