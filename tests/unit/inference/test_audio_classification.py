"""Audio classification on tiny models and the trained sample, against the library called directly."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stoppable
from src.inference.models.audio_classification import AudioClassificationHandler
from tests import tiny_classifiers
from tests.tiny_speech import RATE, noise, recording

pytestmark = pytest.mark.xdist_group("torch")

ARCHITECTURES = ("wav2vec2", "hubert", "spectrogram", "whisper_encoder")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Any, Path]]:
    root, loaded = tmp_path_factory.mktemp("classifiers"), dict[str, tuple[Any, Path]]()

    def get(name: str, **options: Any) -> tuple[Any, Path]:
        from src.inference.engines.transformers.engine import TransformersEngine

        key = name + "".join(options)
        if key not in loaded:
            path = getattr(tiny_classifiers, name)(root / key, **options)
            engine = TransformersEngine({"device": "cpu"})
            loaded[key] = engine.load_model(name, model_path=path, task="audio-classification"), path
        return loaded[key]

    return get


def directly(path: Path, samples: Any) -> Any:
    """The library's logits."""
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    extractor = AutoFeatureExtractor.from_pretrained(path)
    model = AutoModelForAudioClassification.from_pretrained(path).eval()
    with torch.inference_mode():
        return model(**extractor(samples, sampling_rate=RATE, return_tensors="pt")).logits[0]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_scores_are_the_librarys(name: str, load: Any) -> None:
    runner, path = load(name)
    raw = runner.run(recording(noise(0.9)), {})
    assert raw["scores"] == pytest.approx(directly(path, noise(0.9)).softmax(-1).tolist(), abs=1e-5)
    assert raw["labels"] == list(tiny_classifiers.LABELS)
    assert raw["warnings"] == []


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_another_sound_changes_the_scores(name: str, load: Any) -> None:
    one, other = (load(name)[0].run(recording(noise(0.9, seed)), {})["scores"] for seed in (0, 3))
    assert not np.allclose(one, other, atol=1e-4)


def test_labels_that_do_not_exclude_each_other_are_scored_each_alone(load: Any) -> None:
    runner, path = load("spectrogram", problem_type="multi_label_classification")
    raw = runner.run(recording(noise(0.9)), {})
    assert raw["scores"] == pytest.approx(directly(path, noise(0.9)).sigmoid().tolist(), abs=1e-5)
    assert sum(raw["scores"]) != pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("name", "seconds"), [("spectrogram", 1.07), ("whisper_encoder", 2.0), ("wav2vec2", 30.0)])
def test_a_long_sound_is_the_mean_of_windows_over_all_of_it(name: str, seconds: float, load: Any) -> None:
    from src.inference.engines.transformers.audio_classification import window_samples

    runner, path = load(name)
    size = window_samples(runner.processor)
    assert size / RATE == pytest.approx(seconds, abs=0.02)
    long = np.concatenate([noise(seconds, 1), noise(0.7 * seconds, 2)])
    raw = runner.run(recording(long), {})
    each = [directly(path, window).softmax(-1).numpy() for window in (long[:size], long[-size:])]
    assert raw["scores"] == pytest.approx(np.mean(each, axis=0).tolist(), abs=1e-5)
    assert raw["metadata"]["windows"] == 2
    assert "mean of 2 windows" in raw["warnings"][0]


def test_the_window_of_a_spectrogram_is_all_that_its_extractor_keeps(load: Any) -> None:
    from src.inference.engines.transformers.audio_classification import window_samples

    runner, path = load("spectrogram")
    size = window_samples(runner.processor)
    sound = noise(3)[: size + 160]
    assert not np.allclose(directly(path, sound[:size]), directly(path, sound[: size - 160]))
    assert np.allclose(directly(path, sound[:size]), directly(path, sound))  # a frame more is dropped


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("samples", [np.zeros(RATE, np.float32), np.zeros(1, np.float32), noise(0.01)])
def test_silence_and_an_instant_are_classified_too(name: str, load: Any, samples: Any) -> None:
    raw = load(name)[0].run(recording(samples), {})
    assert sum(raw["scores"]) == pytest.approx(1)


def test_a_recording_without_samples_is_refused(load: Any) -> None:
    with pytest.raises(InvalidInputError, match="not one sample"):
        load("spectrogram")[0].run(recording(np.zeros(0, np.float32)), {})


def test_options_about_generating_are_warned_of(load: Any) -> None:
    raw = load("spectrogram")[0].run(recording(noise(1)), {"num_beams": 2, "language": "en", "top_k": 3})
    for name in ("num_beams", "language"):
        assert any(f"option '{name}'" in warning for warning in raw["warnings"])
    assert not any("top_k" in warning for warning in raw["warnings"])


def test_a_caller_who_is_gone_ends_it(load: Any) -> None:
    with pytest.raises(CancelledError), stoppable(lambda: True):
        load("spectrogram")[0].run(recording(noise(1)), {})


@pytest.mark.parametrize(("options", "count"), [({}, 50), ({"top_k": 3}, 3), ({"top_k": 0}, 60), ({"top_k": 100}, 60)])
def test_labels_come_by_score_as_many_as_asked_for(options: dict[str, Any], count: int) -> None:
    scores = [(7 * place % 60) / 100 for place in range(60)]
    raw = {"labels": [f"label {place}" for place in range(60)], "scores": scores, "metadata": {}}
    answer = AudioClassificationHandler().postprocess(raw, options)
    assert answer["scores"] == sorted(scores, reverse=True)[:count]
    assert answer["labels"][0] == f"label {scores.index(max(scores))}"
