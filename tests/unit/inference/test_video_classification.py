"""Video classification on tiny models: the direct call's labels and scores, frame counts, options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny_videos import CLASSIFIERS, LABELS

pytestmark = pytest.mark.xdist_group("torch")

TAKEN = {"videomae": 4, "videomae-pictures": 4, "timesformer": 3, "vivit": 4, "vjepa2": 8, "videoprism": 4}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {name: build(base / name) for name, build in CLASSIFIERS.items()}


@pytest.fixture(scope="module")
def runners(folders: dict[str, Path]) -> dict[str, Any]:
    from src.inference.engines.transformers.video_classification import VideoClassificationRunner as Runner

    where: dict[str, Any] = {"device": "cpu", "dtype": "auto", "trust_remote_code": False}
    return {name: Runner.load("tiny", folder, **where) for name, folder in folders.items()}


@pytest.fixture(params=list(CLASSIFIERS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def video(count: int, seed: int = 0) -> dict[str, Any]:
    shades = np.random.default_rng(seed).integers(0, 255, (count, 6, 6, 3), dtype=np.uint8)
    return {
        "frames": np.kron(shades, np.ones((1, 8, 8, 1), np.uint8)),
        "timestamps": tuple(place * 0.5 for place in range(count)),
        "indices": tuple(place * 5 for place in range(count)),
        "total_frames": 5 * count,
        "fps": 10.0,
        "duration": count / 2,
        "type": "video/mp4",
    }


def ask(runner: Any, shown: dict[str, Any], prompt: str | None = None, **options: Any) -> Any:
    return runner.run({"video": shown, "prompt": prompt}, options)


def direct(folder: Path, frames: Any) -> dict[str, float]:
    """Returns each label's score by the library alone."""
    import torch
    from transformers import AutoModelForVideoClassification, AutoVideoProcessor

    model = AutoModelForVideoClassification.from_pretrained(folder).eval()
    inputs = AutoVideoProcessor.from_pretrained(folder)(list(frames), return_tensors="pt", do_sample_frames=False)
    with torch.inference_mode():
        scores = model(**inputs).logits.flatten().softmax(-1)
    return dict(zip(LABELS, scores.tolist(), strict=True))


def test_labels_and_scores_are_the_direct_calls(runners: Any, folders: Any, kind: str) -> None:
    shown = video(TAKEN[kind])
    raw, scores = ask(runners[kind], shown), direct(folders[kind], shown["frames"])
    assert raw["labels"] == sorted(LABELS, key=lambda label: -scores[label])[:5]
    assert raw["scores"] == pytest.approx(sorted(scores.values(), reverse=True)[:5], abs=1e-4)
    assert raw["response"] == raw["labels"][0]
    assert raw["warnings"] == []


@pytest.mark.parametrize("place", [0, -1])
def test_another_frame_has_other_scores(runners: Any, kind: str, place: int) -> None:
    shown = video(TAKEN[kind])
    before = ask(runners[kind], shown, top_k=6)
    shown["frames"] = shown["frames"].copy()
    shown["frames"][place] = 255 - shown["frames"][place]
    after = ask(runners[kind], shown, top_k=6)
    moved = dict(zip(after["labels"], after["scores"], strict=True))
    was = dict(zip(before["labels"], before["scores"], strict=True))
    assert max(abs(moved[label] - was[label]) for label in LABELS) > 1e-3


def test_asks_for_as_many_frames_as_it_takes(runners: Any, kind: str) -> None:
    from src.inference.models.video_analysis import VideoAnalysisHandler as Handler

    facts = runners[kind].media
    assert Handler.media_wishes("video", {}, facts) == {"num_frames": TAKEN[kind]}
    asked = Handler.media_wishes("video", {"num_frames": 6, "fps": 2.0}, facts)
    assert asked == {"num_frames": 6 if kind == "vjepa2" else TAKEN[kind], "fps": 2.0}


def test_a_video_with_too_few_frames_has_its_last_one_repeated(runners: Any, folders: Any, kind: str) -> None:
    shown, taken = video(1), 2 if kind == "vjepa2" else TAKEN[kind]
    raw = ask(runners[kind], shown)
    scores = direct(folders[kind], np.repeat(shown["frames"], taken, axis=0))
    assert raw["scores"] == pytest.approx(sorted(scores.values(), reverse=True)[:5], abs=1e-4)
    assert raw["frames"] == {"count": taken, "indices": [0] * taken, "timestamps": [0.0] * taken}
    assert raw["warnings"] == [f"the model takes {taken} frames and the video gave 1: the last one was repeated"]


def test_frames_used_are_told(runners: Any, kind: str) -> None:
    count = TAKEN[kind]
    assert ask(runners[kind], video(count))["frames"] == {
        "count": count,
        "indices": [place * 5 for place in range(count)],
        "timestamps": [place * 0.5 for place in range(count)],
    }


@pytest.mark.parametrize(("top_k", "given"), [(1, 1), (3, 3), (50, 6)])
def test_top_k_labels_are_given(runners: Any, kind: str, top_k: int, given: int) -> None:
    raw = ask(runners[kind], video(TAKEN[kind]), top_k=top_k)
    assert len(raw["labels"]) == len(raw["scores"]) == given
    assert raw["scores"] == sorted(raw["scores"], reverse=True)


def test_labels_that_go_together_are_scored_each_by_itself(runners: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners["vivit"].model.config, "problem_type", "multi_label_classification")
    scores = ask(runners["vivit"], video(4), top_k=6)["scores"]
    assert sum(scores) != pytest.approx(1.0, abs=1e-3)
    assert all(0 < score < 1 for score in scores)


def test_what_has_no_effect_is_told(runners: Any) -> None:
    warnings = ask(runners["videomae"], video(4), "What happens?", num_frames=8, temperature=0.5)["warnings"]
    assert [warning.split("'")[1] for warning in warnings] == ["temperature", "prompt", "num_frames"]


def test_warms_up(runners: Any, kind: str) -> None:
    runners[kind].warm_up()
