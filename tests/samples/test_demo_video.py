"""Examines the committed video model on clips that its training never saw."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from transformers import AutoModelForImageTextToText, AutoProcessor

from samples.inputs.motions import (
    MOTIONS,
    Clip,
    Frame,
    draw_clip,
    exchanges,
    is_exam,
    sample,
    still_clip,
    write_video,
)
from samples.training import share_right

pytest.importorskip("torchvision", reason="the video processors of transformers need torchvision")

FOLDER = Path(__file__).parents[2] / "samples" / "demo-video"
FRAMES = 8
RNG = random.Random("test")
CLIPS = [draw_clip(RNG, held_out=True, sampled=FRAMES, motion=motion) for motion in MOTIONS for _ in range(20)]
ASKED = [exchanges(clip, RNG) for clip in CLIPS]
SUBJECTS = ("motion", "shape", "colour")
OPPOSITES = {"left": "right", "right": "left", "up": "down", "down": "up", "grow": "shrink", "shrink": "grow"}


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, local_files_only=True).eval()


def ask(model: Any, processor: Any, clips: Sequence[Sequence[Frame]], prompts: list[str]) -> list[str]:
    messages = [
        [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": prompt}]}] for prompt in prompts
    ]
    texts = [processor.apply_chat_template(message, add_generation_prompt=True) for message in messages]
    videos = [np.stack(list(frames)) for frames in clips]
    inputs = processor(videos=videos, text=texts, padding=True, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=16)
    answers = processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [answer.strip() for answer in answers]


def score(model: Any, processor: Any, subject: str, clips: Sequence[Sequence[Frame]]) -> float:
    questions = [asked[subject] for asked in ASKED]
    replies = ask(model, processor, clips, [question.prompt for question in questions])
    return share_right(replies, [question.reply for question in questions])


@pytest.mark.parametrize("subject", SUBJECTS)
def test_answers_nine_held_out_questions_in_ten(
    model: Any, processor: Any, subject: str, figure: Callable[[str], None]
) -> None:
    right = score(model, processor, subject, [clip.frames for clip in CLIPS])
    figure(f"{right:.1%} of {len(CLIPS)} questions about the {subject} in a clip answered exactly")
    assert right >= 0.9


@pytest.mark.parametrize("subject", [*SUBJECTS, "all"])
def test_nothing_in_the_picture_brings_it_down_to_guessing(
    model: Any, processor: Any, subject: str, figure: Callable[[str], None]
) -> None:
    rng = random.Random("blank")
    right = score(model, processor, subject, [still_clip(rng, FRAMES) for _ in CLIPS])
    figure(f"{right:.1%} of {len(CLIPS)} questions about the {subject} in an empty clip answered exactly")
    assert right <= 0.25


def test_one_answer_for_everything_fails_the_exam() -> None:
    for subject in SUBJECTS:
        replies = [asked[subject].reply for asked in ASKED]
        assert max(map(replies.count, replies)) / len(replies) <= 0.2, subject


def test_describes_what_it_sees(model: Any, processor: Any) -> None:
    assert score(model, processor, "all", [clip.frames for clip in CLIPS]) >= 0.8


def read_video(path: Path) -> list[Frame]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def films() -> list[Clip]:
    """Whole clips, three of each motion."""
    rng = random.Random("films")
    return [draw_clip(rng, held_out=True, motion=motion) for motion in MOTIONS for _ in range(3)]


def test_written_video_keeps_frames_and_pace(films: list[Clip], tmp_path: Path) -> None:
    write_video(films[0], tmp_path / "clip.mp4")
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.video[0].average_rate == films[0].fps
    frames = read_video(tmp_path / "clip.mp4")
    assert len(frames) == len(films[0].frames)
    assert np.abs(np.stack(frames) - np.stack(films[0].frames).astype(float)).mean() < 8


def test_understands_clips_from_a_compressed_file(
    model: Any, processor: Any, films: list[Clip], tmp_path: Path
) -> None:
    clips = []
    for film in films:
        write_video(film, tmp_path / "clip.mp4")
        frames = read_video(tmp_path / "clip.mp4")
        clips.append([frames[place] for place in sample(len(frames), FRAMES)])
    replies = ask(model, processor, clips, ["What happens?"] * len(clips))
    assert share_right(replies, [MOTIONS[film.motion] for film in films]) >= 0.85


def test_one_frame_of_the_clip_is_not_enough(model: Any, processor: Any) -> None:
    assert score(model, processor, "motion", [[clip.frames[3]] * FRAMES for clip in CLIPS]) <= 0.3


def test_a_clip_played_backwards_moves_the_other_way(model: Any, processor: Any) -> None:
    clips = [clip for clip in CLIPS if clip.motion in OPPOSITES]
    replies = ask(model, processor, [clip.frames[::-1] for clip in clips], ["What happens?"] * len(clips))
    assert share_right(replies, [MOTIONS[OPPOSITES[clip.motion]] for clip in clips]) >= 0.8


def test_exam_shows_only_held_out_clips_and_training_none() -> None:
    assert all(is_exam(clip.motion, clip.shape, clip.colour) for clip in CLIPS)
    rng = random.Random(3)
    training = [draw_clip(rng, held_out=False, sampled=2) for _ in range(300)]
    assert not any(is_exam(clip.motion, clip.shape, clip.colour) for clip in training)
    assert {clip.motion for clip in training} == set(MOTIONS)


def test_same_seed_films_the_same_clip() -> None:
    first, second = (draw_clip(random.Random(5), held_out=False, sampled=4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.frames, second.frames, strict=True))
