"""Spoken words for `demo-asr`: a formant synthesiser in numpy, and many voices.

A word is a row of phonemes. A phoneme has targets for the first three formants, for voicing and for
noise; the targets glide into one another, a row of glottal pulses and white noise is shaped by
them frame by frame, and the frames are added up again. Formants after Peterson and Barney (1952).
Training and exam share neither a sentence nor a combination of pitch and vocal tract.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from samples.inputs.split import is_held_out

RATE = 16_000
FRAME, HOP = 512, 128
LANGUAGES = ("en", "zh")
Waveform = NDArray[np.float32]


class Phoneme(NamedTuple):
    """Targets of a speech sound; formants and the noise's middle and width in Hz, the length in seconds."""

    formants: tuple[int, int, int]
    voiced: float = 1.0
    noise: float = 0.0
    middle: int = 0
    spread: int = 1
    seconds: float = 0.08


PHONEMES = {
    "IY": Phoneme((270, 2290, 3010), seconds=0.12),
    "IH": Phoneme((390, 1990, 2550), seconds=0.10),
    "EH": Phoneme((530, 1840, 2480), seconds=0.12),
    "AE": Phoneme((660, 1720, 2410), seconds=0.13),
    "AH": Phoneme((640, 1190, 2390), seconds=0.11),
    "AA": Phoneme((730, 1090, 2440), seconds=0.13),
    "AO": Phoneme((570, 840, 2410), seconds=0.12),
    "UH": Phoneme((440, 1020, 2240), seconds=0.09),
    "UW": Phoneme((300, 870, 2240), seconds=0.11),
    "ER": Phoneme((490, 1350, 1690), seconds=0.12),
    "IX": Phoneme((420, 1400, 2600), seconds=0.12),
    "W": Phoneme((290, 610, 2150), 0.7, seconds=0.06),
    "Y": Phoneme((260, 2070, 3020), 0.7, seconds=0.05),
    "R": Phoneme((310, 1060, 1380), 0.7, seconds=0.06),
    "L": Phoneme((310, 1050, 2880), 0.6, seconds=0.06),
    "M": Phoneme((250, 1000, 2200), 0.35, seconds=0.07),
    "N": Phoneme((250, 1500, 2500), 0.35, seconds=0.07),
    "NG": Phoneme((250, 2100, 2600), 0.35, seconds=0.07),
    "F": Phoneme((400, 1200, 2300), 0.0, 0.25, 4500, 3500, 0.09),
    "V": Phoneme((300, 1200, 2300), 0.35, 0.12, 4500, 3500, 0.06),
    "TH": Phoneme((400, 1500, 2500), 0.0, 0.2, 6500, 3000, 0.09),
    "S": Phoneme((350, 1700, 2600), 0.0, 0.8, 6000, 1200, 0.10),
    "Z": Phoneme((300, 1700, 2600), 0.4, 0.5, 6000, 1200, 0.08),
    "SH": Phoneme((350, 1900, 2600), 0.0, 0.8, 3300, 900, 0.10),
    "CH": Phoneme((350, 1900, 2600), 0.0, 0.9, 3500, 1000, 0.07),
    "HH": Phoneme((500, 1500, 2500), 0.0, 0.3, 1800, 1500, 0.06),
    "T": Phoneme((350, 1700, 2600), 0.0, 0.9, 4500, 1500, 0.03),
    "K": Phoneme((350, 1900, 2400), 0.0, 0.8, 2000, 500, 0.035),
    "P": Phoneme((350, 900, 2300), 0.0, 0.6, 900, 500, 0.025),
    "D": Phoneme((300, 1700, 2600), 0.5, 0.5, 4000, 1500, 0.025),
    "G": Phoneme((300, 1900, 2400), 0.5, 0.5, 1900, 500, 0.03),
    "B": Phoneme((300, 900, 2300), 0.5, 0.3, 800, 500, 0.025),
    ".": Phoneme((350, 1500, 2500), 0.0, seconds=0.05),
}
STOPS = frozenset("TKPDGB") | {"CH"}

SOUNDS = {
    "en": {
        "zero": "Z IH R OW",
        "one": "W AH N",
        "two": "T UW",
        "three": "TH R IY",
        "four": "F AO R",
        "five": "F AY V",
        "six": "S IH K S",
        "seven": "S EH V AH N",
        "eight": "EY T",
        "nine": "N AY N",
        "yes": "Y EH S",
        "no": "N OW",
        "stop": "S T AA P",
        "go": "G OW",
        "left": "L EH F T",
        "right": "R AY T",
        "up": "AH P",
        "down": "D AW N",
        "hello": "HH EH L OW",
        "open": "OW P AH N",
        "close": "K L OW Z",
        "light": "L AY T",
        "music": "M Y UW Z IH K",
        "please": "P L IY Z",
    },
    "zh": {
        "零": "L IY NG",
        "一": "IY",
        "二": "AA ER",
        "三": "S AA N",
        "四": "S IX",
        "五": "W UW",
        "六": "L IY OW",
        "七": "CH IY",
        "八": "B AA",
        "九": "CH Y IY OW",
    },
}
DIPHTHONGS = {"OW": "AO UW", "AY": "AA IH", "EY": "EH IY", "AW": "AA UW"}
# Where the pitch starts and ends in a word, as factors of the voice's: the four tones of Mandarin.
TONES = {"零": (0.9, 1.3), "一": (1.25, 1.25), "二": (1.3, 0.8), "三": (1.25, 1.25), "四": (1.3, 0.8)}
TONES |= {"五": (0.8, 0.9), "六": (1.3, 0.8), "七": (1.25, 1.25), "八": (1.25, 1.25), "九": (0.8, 0.9)}

PITCHES = np.geomspace(85, 290, 11)
TRACTS = np.linspace(0.88, 1.22, 9)


@dataclass(frozen=True)
class Voice:
    """Who speaks: pitch in Hz, formants and speed as factors, breath and unsteadiness as shares."""

    pitch: float
    tract: float
    speed: float
    breath: float
    tilt: float

    @property
    def held_out(self) -> bool:
        """Whether voices of about this pitch and vocal tract are kept out of training."""
        cell = np.searchsorted(PITCHES, self.pitch), np.searchsorted(TRACTS, self.tract)
        return is_held_out(f"voice {cell[0]} {cell[1]}")


@dataclass(frozen=True)
class Utterance:
    """A recording at 16 kHz, what is said in which language, and when each word starts and ends in seconds."""

    audio: Waveform
    words: tuple[str, ...]
    spans: tuple[tuple[float, float], ...]
    language: str

    @property
    def text(self) -> str:
        """The words as the language writes them."""
        return transcript(self.words, self.language)


def transcript(words: Sequence[str], language: str) -> str:
    """Write words as their language does: with spaces, or without."""
    return ("" if language == "zh" else " ").join(words)


def draw_voice(rng: random.Random, *, held_out: bool) -> Voice:
    """Draw a voice from one side of the split."""
    while True:
        pitch = float(np.exp(rng.uniform(np.log(PITCHES[0]), np.log(PITCHES[-1]))))
        # Small speakers have both: a high pitch and a short vocal tract.
        tract = float(np.clip(0.78 + 0.25 * pitch / 145 + rng.gauss(0, 0.07), TRACTS[0], TRACTS[-1]))
        voice = Voice(pitch, tract, rng.uniform(0.75, 1.35), rng.uniform(0.0, 0.15), rng.uniform(0.7, 1.3))
        if voice.held_out == held_out:
            return voice


def draw_utterance(
    rng: random.Random, *, held_out: bool, language: str | None = None, most: int = 6, seconds: float = 0.0
) -> Utterance:
    """Draw a sentence of 1 to `most` words, or of at least so many seconds, in a voice of one side of the split."""
    language = language or rng.choice(LANGUAGES)
    vocabulary = list(SOUNDS[language])
    while True:
        words = tuple(rng.choices(vocabulary, k=rng.randint(1, most)))
        # A single word is not a sentence that could be held out: the vocabulary would go with it.
        if len(words) == 1 or is_held_out(" ".join(words)) == held_out:
            break
    voice = draw_voice(rng, held_out=held_out)
    return speak(words, language, voice, rng, seconds=seconds)


def speak(words: Sequence[str], language: str, voice: Voice, rng: random.Random, *, seconds: float = 0.0) -> Utterance:
    """Say words with pauses in between, padded with near silence to at least so many seconds."""
    pieces: list[Waveform] = [_hush(rng.uniform(0.05, 0.4))]
    spans = []
    for index, word in enumerate(words):
        sound = say(word, language, voice, rng, fall=1 - 0.15 * index / max(1, len(words)))
        start = sum(map(len, pieces)) / RATE
        spans.append((start, start + len(sound) / RATE))
        pieces += [sound, _hush(rng.uniform(0.03, 0.25))]
    pieces.append(_hush(max(rng.uniform(0.0, 0.4), seconds - sum(map(len, pieces)) / RATE)))
    return Utterance(_record(np.concatenate(pieces), rng), tuple(words), tuple(spans), language)


def silence(rng: random.Random, seconds: float = 2.0) -> Waveform:
    """Record a room in which nobody speaks."""
    return _record(_hush(seconds), rng)


def _hush(seconds: float) -> Waveform:
    return np.zeros(round(max(0.0, seconds) * RATE), np.float32)


def _record(audio: Waveform, rng: random.Random) -> Waveform:
    """Add the noise of a room and a level of the microphone; the result stays within -1..1."""
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, len(audio))
    loud = audio / max(1e-3, float(np.abs(audio).max())) if audio.any() else audio
    mixed = loud + 10 ** rng.uniform(-3.2, -1.7) * noise
    return np.clip(mixed * rng.uniform(0.1, 0.8), -1, 1).astype(np.float32)


def say(word: str, language: str, voice: Voice, rng: random.Random, *, fall: float = 1.0) -> Waveform:
    """Say one word."""
    track = _targets(_phonemes(word, language, rng), voice, rng)
    frames = len(track)
    low, high = TONES.get(word, (1.06, 0.92)) if language == "zh" else (1.06, 0.92)
    bend = np.linspace(low, high, frames) * (1 + 0.03 * rng.uniform(-1, 1) * np.sin(np.linspace(0, 9, frames)))
    source = np.random.default_rng(rng.getrandbits(32))
    pulses = _pulses(np.repeat(voice.pitch * fall * bend, HOP), source)
    breath = source.normal(0, 1, len(pulses))
    return _shape(pulses + voice.breath * breath * 0.3, breath, track, voice)


def _phonemes(word: str, language: str, rng: random.Random) -> list[Phoneme]:
    """Spell a word in phonemes: diphthongs apart, a closure before a stop, no length twice the same."""
    names = " ".join(DIPHTHONGS.get(name, name) for name in SOUNDS[language][word].split()).split()
    closed = [part for name in names for part in ([".", name] if name in STOPS else [name])]
    if closed[0] == ".":
        closed = closed[1:]
    return [PHONEMES[name]._replace(seconds=PHONEMES[name].seconds * rng.uniform(0.75, 1.35)) for name in closed]


def _targets(phonemes: Sequence[Phoneme], voice: Voice, rng: random.Random) -> NDArray[np.float64]:
    """Lay targets out over frames, (frames, 7): three formants, voicing, noise and its middle and width."""
    rows = []
    for phoneme in phonemes:
        drift = [rng.uniform(0.95, 1.05) for _ in range(3)]
        formants = [f * voice.tract * d for f, d in zip(phoneme.formants, drift, strict=True)]
        middle = phoneme.middle * voice.tract**0.5
        row = [*formants, phoneme.voiced, phoneme.noise, middle or 4000, phoneme.spread if middle else 2000]
        rows += [row] * max(2, round(phoneme.seconds / voice.speed * RATE / HOP))
    track = np.array([rows[0]] * 2 + rows + [rows[-1]] * 2)
    track[:1, 3:5] = track[-1:, 3:5] = 0
    # Tongue and lips need some 40 ms to move; voicing and bursts are quicker.
    for columns, width in ((slice(0, 3), 5), (slice(3, 5), 2)):
        padded = np.pad(track[:, columns], ((width // 2, (width - 1) // 2), (0, 0)), "edge")
        track[:, columns] = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).mean(-1)
    return track


def _pulses(pitch: NDArray[np.float64], source: np.random.Generator) -> NDArray[np.float64]:
    """Make one pulse per period of the pitch, in Hz per sample, a little unsteady."""
    phase = np.cumsum(pitch / RATE * (1 + 0.02 * source.normal(0, 1, len(pitch))))
    return np.diff(np.floor(phase), prepend=0.0) * np.sqrt(RATE / pitch) * source.normal(1, 0.05, len(pitch))


def _shape(
    pulses: NDArray[np.float64], breath: NDArray[np.float64], track: NDArray[np.float64], voice: Voice
) -> Waveform:
    """Shape pulses and noise by the targets of each frame, and add the frames up."""
    hz = np.fft.rfftfreq(FRAME, 1 / RATE)
    resonance = np.ones((len(track), len(hz)))
    for column, (width, weight) in enumerate(((90, 1.0), (120, 0.6), (180, 0.35))):
        at = track[:, column, None]
        resonance += weight * 12 / (1 + ((hz - at) / width) ** 2)
    voiced = track[:, 3, None] * (resonance - 0.9) * (1 + hz / 500) ** -voice.tilt
    noisy = track[:, 4, None] * 2.5 * np.exp(-(((hz - track[:, 5, None]) / track[:, 6, None]) ** 2))
    window = np.hanning(FRAME)
    padded = [np.pad(signal, (FRAME // 2, FRAME)) for signal in (pulses, breath)]
    views = [np.lib.stride_tricks.sliding_window_view(signal, FRAME)[::HOP][: len(track)] for signal in padded]
    spectra = [np.fft.rfft(view * window) for view in views]
    frames = np.fft.irfft(spectra[0] * voiced + spectra[1] * noisy) * window
    sound = np.zeros(len(track) * HOP + FRAME)
    for offset in range(0, FRAME, HOP):
        part = frames[:, offset : offset + HOP].ravel()
        sound[offset : offset + len(part)] += part
    return (sound[FRAME // 2 : FRAME // 2 + len(track) * HOP] / 40).astype(np.float32)
