"""Speech recognition and audio classification from Python, as users write it."""

import random
from pathlib import Path
from typing import Any

import pytest

from samples.inputs.sounds import RATE, draw_sound
from samples.train_demo_asr import exam
from tests.documented.conftest import without_settings_of_this_machine
from tests.integration.conftest import manager_of
from tests.integration.test_python_door import run
from tests.service import ROOT
from tests.unit.media.media_files import wav

pytestmark = pytest.mark.slow

RNG = random.Random("documented")
SENTENCE = exam(1, "zh", RNG)[0]
SOUND = draw_sound(RNG, held_out=True, label="siren")
SCRIPT = """
import json
from src.inference import inference_manager

told = []
result = inference_manager.infer(task="asr", engine="transformers", model_name="whisper-large-v3",
    data={"audio": "/path/to/audio.wav"}, options={"language": "zh", "task": "transcribe"})
told.append(result)
result = inference_manager.infer(task="audio-classification", engine="transformers", model_name="wav2vec2-audio-classifier", data={"audio": "/path/to/sound.wav"}, options={})
told.append(result)
print(json.dumps(told))
"""  # noqa: E501


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the script told, of models and recordings that bear the documented names."""
    folder = tmp_path_factory.mktemp("speech")
    data_dir = folder / "data"
    data_dir.mkdir()
    with without_settings_of_this_machine():
        models = manager_of(data_dir)
    for name, sample, task in (
        ("whisper-large-v3", "demo-asr", "asr"),
        ("wav2vec2-audio-classifier", "demo-audio", "audio-classification"),
    ):
        tags = {"task": task, "engine": "transformers"}
        models.register_model_to_mlflow(name, "huggingface", ROOT / "samples" / sample, tags)
    models.close()
    (folder / "audio.wav").write_bytes(wav(SENTENCE.audio, RATE))
    (folder / "sound.wav").write_bytes(wav(SOUND.audio, RATE))
    return run(SCRIPT.replace("/path/to", str(Path(folder))), data_dir)


def test_asr(told: Any) -> None:
    """`data={"audio": …}, options={"language": "zh", "task": "transcribe"})  # → ["transcription"]`."""
    answer = told[0]
    assert answer["success"] is True, answer
    assert answer["result"]["transcription"] == SENTENCE.text
    assert answer["result"]["language"] == "zh"
    assert "warnings" not in answer


def test_audio_classification(told: Any) -> None:
    """`data={"audio": "/path/to/audio.wav"}, options={})  # → ["labels"], ["scores"]`."""
    answer = told[1]
    assert answer["success"] is True, answer
    labels, scores = answer["result"]["labels"], answer["result"]["scores"]
    assert labels[0] == SOUND.label
    assert all(isinstance(label, str) for label in labels)
    assert scores == sorted(scores, reverse=True)
    assert len(labels) == len(scores)
