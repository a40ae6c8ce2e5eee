"""Makes the inputs of README's curls, which no training has seen, and the requests that send them.

    python -m samples.make_requests [--out samples]

Writes `media/` (files to send) and `requests/` (bodies of `POST /inference/infer`). The same seeds make
the same contents; a test serves each request and compares the answer with `truths()`.
"""

import argparse
import json
import random
import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samples.inputs import forms, lines, motions, scenes, sounds, speech, things

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Sample:
    """A request whose answer is known: `field` of the result is `truth`; `write` makes the file that it sends."""

    task: str
    model: str
    media: str
    file: str
    write: Callable[[Path], None]
    prompt: dict[str, str]
    options: dict[str, Any]
    field: str
    truth: str

    @property
    def body(self) -> dict[str, Any]:
        """The body of the request; the file is named below the media root `samples`."""
        return {
            "task": self.task,
            "engine": "transformers",
            "model_name": self.model,
            "data": {self.media: f"media/{self.file}", **self.prompt},
            **({"options": self.options} if self.options else {}),
        }


def samples() -> list[Sample]:
    """Make one held-out input for each task with media."""
    return [_shapes(), _digits(), _line(), _sound(), _thing(), _motion(), _form()]


def _shapes() -> Sample:
    scene = scenes.draw_scene(random.Random("README 6"), held_out=True, count=3)
    options = {"max_length": 256, "temperature": 0}
    prompt = {"prompt": "Describe the picture."}
    truth = " and ".join(map(str, scene.groups))
    return Sample("vlm", "demo-vlm", "image", "shapes.png", scene.image.save, prompt, options, "description", truth)


def _digits() -> Sample:
    rng = random.Random("README")
    words = ("二", "零", "二", "六")
    said = speech.speak(words, "zh", speech.draw_voice(rng, held_out=True), rng)
    options = {"language": "zh", "task": "transcribe"}
    return Sample(
        "asr", "demo-asr", "audio", "digits.wav", _wav(said.audio), {}, options, "transcription", "".join(words)
    )


def _line() -> Sample:
    rng = random.Random("README")
    image = lines.render("Order 4711", lines.EXAM_FONTS[0], rng, wear=0.2)
    return Sample("ocr", "demo-ocr", "image", "line.png", image.save, {}, {}, "text", "Order 4711")


def _sound() -> Sample:
    sound = sounds.draw_sound(random.Random("README"), held_out=True, label="siren")
    return Sample(
        "audio-classification", "demo-audio", "audio", "siren.wav", _wav(sound.audio), {}, {}, "labels", "siren"
    )


def _thing() -> Sample:
    thing = things.draw_thing(random.Random("README 7"), held_out=True, label="boat")
    return Sample(
        "image-classification", "demo-image", "image", "boat.png", thing.image.save, {}, {}, "labels", thing.label
    )


def _motion() -> Sample:
    clip = motions.draw_clip(random.Random("README"), held_out=True, motion="left")
    prompt = {"prompt": "What happens in the video?"}
    options = {"max_length": 300, "temperature": 0}

    def write(path: Path) -> None:
        motions.write_video(clip, path)

    truth = motions.MOTIONS["left"]
    return Sample("video-analysis", "demo-video", "video", "motion.mp4", write, prompt, options, "analysis", truth)


def _form() -> Sample:
    rng = random.Random("README 2")
    form = forms.draw_form(rng, held_out=True)
    while "total" not in form.answers:
        form = forms.draw_form(rng, held_out=True)

    def write(path: Path) -> None:
        path.write_bytes(forms.write_pdf(form))

    query = {"query": "What is the total?"}
    return Sample(
        "document-analysis", "demo-document", "document", "form.pdf", write, query, {}, "answer", form.answers["total"]
    )


def _wav(audio: NDArray[np.float32]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(speech.RATE)
            file.writeframes((np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())

    return write


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description="Make the inputs of README's curls.")
    parser.add_argument("--out", type=Path, default=HERE)
    out = parser.parse_args().out
    for folder in ("media", "requests"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for sample in samples():
        sample.write(out / "media" / sample.file)
        text = json.dumps(sample.body, ensure_ascii=False, indent=2) + "\n"
        (out / "requests" / f"{sample.task}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
