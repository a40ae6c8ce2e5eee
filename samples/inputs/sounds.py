"""Short sounds for `demo-audio`, of ten kinds, made in numpy.

Each kind has two parameters that shape it most, such as its pitch and its pace. Their range is cut
into cells, and one cell in five is held out: training never hears a sound of that kind from there.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from samples.inputs.split import is_held_out

RATE = 16_000
CELLS = 6
Waveform = NDArray[np.float32]
Samples = NDArray[np.float64]


@dataclass(frozen=True)
class Sound:
    """A recording at 16 kHz, and the kind of sound it holds."""

    audio: Waveform
    label: str


def draw_sound(rng: random.Random, *, held_out: bool, label: str | None = None) -> Sound:
    """Draw a sound of 0.8 to 2.5 seconds from one side of the split, in a little noise, at any level."""
    label = label or rng.choice(LABELS)
    while True:
        first, second = rng.random(), rng.random()
        if is_held_out(f"{label} {int(first * CELLS)} {int(second * CELLS)}") == held_out:
            break
    time = np.arange(round(rng.uniform(0.8, 2.5) * RATE)) / RATE
    noise = np.random.default_rng(rng.getrandbits(32))
    sound = MAKERS[label](time, first, second, noise)
    return Sound(_record(sound, rng, noise), label)


def silence(rng: random.Random) -> Waveform:
    """Record a room in which nothing sounds."""
    return _record(np.zeros(round(rng.uniform(0.8, 2.5) * RATE)), rng, np.random.default_rng(rng.getrandbits(32)))


def _record(sound: Samples, rng: random.Random, noise: np.random.Generator) -> Waveform:
    """Fade in and out, add the noise of a room, start late, and set the level."""
    edge = np.minimum(1, np.minimum(np.arange(len(sound)), np.arange(len(sound))[::-1]) / (0.01 * RATE))
    faded = sound * edge / max(1e-6, float(np.abs(sound).max()))
    late = np.concatenate([np.zeros(round(rng.uniform(0, 0.2) * RATE)), faded])
    mixed = late + 10 ** rng.uniform(-4, -2) * noise.normal(0, 1, len(late))
    return np.clip(mixed * 10 ** rng.uniform(-1, -0.1), -1, 1).astype(np.float32)


def _between(low: float, high: float, share: float) -> float:
    """Go from low to high by a share, in equal steps to the ear."""
    return float(low * (high / low) ** share)


def _tone(hz: float | Samples, time: Samples) -> Samples:
    steps = np.broadcast_to(hz, time.shape) / RATE
    return np.sin(2 * np.pi * np.cumsum(steps))


def _beep(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    return _tone(_between(400, 3000, pitch), time) * (1 + 0.05 * pace)


def _rising(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    start = _between(200, 900, pitch)
    return _tone(start * _between(2.5, 6, pace) ** (time / time[-1]), time)


def _falling(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    return _rising(time, pitch, pace, noise)[::-1].copy()


def _siren(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    swing = np.sin(2 * np.pi * _between(1.5, 5, pace) * time)
    return _tone(_between(500, 1600, pitch) * 1.5**swing, time)


def _clicks(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    """A metronome: short damped knocks at an even pace."""
    since = np.mod(time, 1 / _between(3, 9, pace))
    return np.exp(-since * 250) * np.sin(2 * np.pi * _between(1200, 4000, pitch) * since)


def _pluck(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    """A string: harmonics that die away, the higher the sooner, plucked about twice a second."""
    since = np.mod(time, _between(0.35, 0.7, pace))
    hz = _between(110, 440, pitch)
    return sum(
        (np.exp(-since * (3 + 1.5 * k)) * np.sin(2 * np.pi * hz * k * since) / k for k in range(1, 9)),
        start=np.zeros_like(time),
    )


def _chord(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    """An organ's triad, held."""
    root = _between(200, 600, pitch)
    third = 5 / 4 if pace < 0.5 else 6 / 5
    notes = [_tone(root * step * k, time) / k for step in (1, third, 3 / 2) for k in (1, 2, 3)]
    return sum(notes, start=np.zeros_like(time))


def _hum(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    """An engine: a low pitch with many harmonics, shaking."""
    shake = 1 + 0.2 * np.sin(2 * np.pi * _between(6, 14, pace) * time)
    hz = _between(50, 110, pitch)
    return shake * sum((_tone(hz * k, time) / k**0.7 for k in range(1, 12)), start=np.zeros_like(time))


def _hiss(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    """Steam: noise as loud at its end as at its start, without the low half."""
    white = noise.normal(0, 1, len(time))
    smooth = np.convolve(white, np.ones(2 + int(4 * pitch)) / (2 + int(4 * pitch)), "same")
    return white - (0.5 + 0.5 * pace) * smooth


def _waves(time: Samples, pitch: float, pace: float, noise: np.random.Generator) -> Samples:
    """The sea: dull noise that swells and ebbs."""
    width = 12 + int(30 * pitch)
    dull = np.convolve(noise.normal(0, 1, len(time)), np.ones(width) / width, "same")
    return dull * (0.55 - 0.45 * np.cos(2 * np.pi * _between(0.8, 2, pace) * time))


MAKERS: dict[str, Callable[[Samples, float, float, np.random.Generator], Samples]] = {
    "beep": _beep,
    "rising tone": _rising,
    "falling tone": _falling,
    "siren": _siren,
    "clicks": _clicks,
    "plucked string": _pluck,
    "chord": _chord,
    "engine hum": _hum,
    "hiss": _hiss,
    "waves": _waves,
}
LABELS = tuple(MAKERS)
