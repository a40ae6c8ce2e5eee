"""Sound of every container, rate and number of channels becomes one channel of float32."""

import struct

import numpy as np
import pytest

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.settings_sections import MediaSettings
from tests.unit.media.decoding import decoded_audio
from tests.unit.media.media_files import flac_of_silence, index_first, shades, sound, tone, video, wav


def pitch(samples: "np.typing.NDArray[np.float32]", rate: int) -> float:
    """Returns the loudest frequency."""
    windowed = samples * np.hanning(len(samples))
    return float(np.abs(np.fft.rfft(windowed)).argmax() * rate / len(samples))


@pytest.mark.parametrize(
    ("container", "codec", "rate", "found"),
    [
        ("wav", "pcm_s24le", 44_100, "audio/wav"),
        ("mp3", "libmp3lame", 44_100, "audio/mpeg"),
        ("flac", "flac", 22_050, "audio/flac"),
        ("ogg", "libopus", 48_000, "audio/ogg"),
        ("ipod", "aac", 44_100, "audio/mp4"),
        ("adts", "aac", 32_000, "audio/aac"),
        ("mp4", "aac", 48_000, "video/mp4"),
        ("webm", "libopus", 24_000, "video/webm"),
        ("matroska", "pcm_s16le", 16_000, "video/webm"),
        ("avi", "libmp3lame", 44_100, "video/avi"),
    ],
)
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_every_container_gives_its_sound(container: str, codec: str, rate: int, found: str, layout: str) -> None:
    if codec == "libmp3lame" and layout == "5.1":
        pytest.skip("MP3 has two channels at most")
    heard = decoded_audio(sound(tone(rate), rate, container, codec, layout=layout), rate=16_000)
    assert heard.type == found
    assert (heard.rate, heard.channels) == (16_000, {"mono": 1, "stereo": 2, "5.1": 6}[layout])
    assert heard.samples.dtype == np.float32
    assert heard.seconds == pytest.approx(1.0, abs=0.15)
    assert len(heard.samples) == pytest.approx(heard.seconds * 16_000, abs=2)
    assert pitch(heard.samples, 16_000) == pytest.approx(440, abs=3)
    # The middle, as a whole: a codec overshoots at the edges, LAME turns down a little, and 5.1 has a channel of bass.
    assert np.sqrt(2 * (heard.samples[4000:12000] ** 2).mean()) == pytest.approx(0.5, abs=0.09)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_every_sample_format_spans_minus_one_to_one(dtype: type) -> None:
    steps = np.linspace(-0.9, 0.9, 1000)
    scale = 1.0 if np.dtype(dtype).kind == "f" else float(127 if dtype is np.uint8 else np.iinfo(dtype).max)
    samples = steps * scale + (128 if dtype is np.uint8 else 0)
    samples = samples.astype(dtype) if np.dtype(dtype).kind == "f" else samples.round().astype(dtype)
    assert decoded_audio(wav(samples, 16_000)).samples == pytest.approx(steps, abs=0.016)


def test_without_a_wish_the_rate_stays_and_so_do_the_samples() -> None:
    samples = tone(11_025)
    heard = decoded_audio(wav(samples, 11_025))
    assert heard.rate == heard.original_rate == 11_025
    assert np.array_equal(heard.samples, samples)


def test_channels_are_mixed_as_their_mean() -> None:
    left, right = tone(8000), np.zeros(8000, np.float32)
    assert decoded_audio(wav(np.stack([left, right], 1), 8000)).samples == pytest.approx(left / 2, abs=1e-6)


def test_another_rate_keeps_pitch_and_length() -> None:
    heard = decoded_audio(wav(tone(44_100, 2.0, 1000.0), 44_100), rate=8000)
    assert len(heard.samples) == pytest.approx(16_000, abs=2)
    assert pitch(heard.samples, 8000) == pytest.approx(1000, abs=2)


def test_what_is_above_the_new_rate_is_gone_and_not_folded_down() -> None:
    heard = decoded_audio(wav(tone(44_100, 1.0, 7000.0), 44_100), rate=8000)
    assert np.abs(heard.samples[200:-200]).max() < 0.01


def test_silence_is_sound_like_any_other() -> None:
    assert not decoded_audio(wav(np.zeros(16_000, np.int16), 16_000)).samples.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    samples = tone(16_000)
    samples[9000] = value
    with pytest.raises(InvalidInputError, match="not numbers"):
        decoded_audio(wav(samples, 16_000), rate=8000)


def test_ten_hours_in_a_small_file_are_refused_by_the_header() -> None:
    data = flac_of_silence(36_000)
    assert len(data) < 200_000
    with pytest.raises(
        PayloadTooLargeError, match=r"is 36,\d+ s long; at most 3,600 are taken \(media.max_audio_seconds\)"
    ):
        decoded_audio(data)


def test_ten_hours_that_no_header_tells_of_are_refused_while_decoding() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"media\.max_audio_seconds"):
        decoded_audio(flac_of_silence(36_000, told=False))


def test_the_silence_of_these_tests_is_real() -> None:
    heard = decoded_audio(flac_of_silence(20, told=False))
    assert 20 <= heard.seconds < 25
    assert not heard.samples.any()


def test_a_length_is_bounded_while_decoding_where_the_header_only_guesses() -> None:
    data = sound(tone(16_000, 3.0), 16_000, "mp3", "libmp3lame")
    with pytest.raises(PayloadTooLargeError, match=r"media\.max_audio_seconds"):
        decoded_audio(data, MediaSettings(max_audio_seconds=2))


@pytest.mark.parametrize("container", ["wav", "flac", "ipod"])
def test_sound_that_is_cut_off_is_refused(container: str) -> None:
    codec = {"wav": "pcm_s16le", "flac": "flac", "ipod": "aac"}[container]
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000).astype(np.float32)
    data = sound(noise, 16_000, container, codec)
    data = index_first(data) if container == "ipod" else data
    assert decoded_audio(data).seconds == pytest.approx(10, abs=0.2)
    with pytest.raises(
        InvalidInputError, match=r"`audio`.*(cut off|damaged|cannot be read).*as an audio this takes wav, mp3"
    ):
        decoded_audio(data[: len(data) // 2])


def test_a_wav_written_to_a_pipe_tells_no_length_and_is_read_to_its_end() -> None:
    data = wav((tone(16_000) * 32767).astype(np.int16), 16_000)
    place = data.index(b"data") + 4
    piped = data[:4] + b"\xff" * 4 + data[8:place] + b"\xff" * 4 + data[place + 4 :]
    assert len(decoded_audio(piped).samples) == 16_000


def test_a_file_without_samples_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"holds no sound|cannot be read"):
        decoded_audio(wav(np.zeros(0, np.int16), 16_000))


def test_a_video_without_sound_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="has no sound track"):
        decoded_audio(video(shades(5)))


def test_damaged_bytes_never_come_out_as_another_kind_of_error() -> None:
    data, random = sound(tone(16_000), 16_000, "ogg", "libopus"), np.random.default_rng(2)
    outcomes = set()
    for _ in range(40):
        broken = bytearray(data)
        for place in random.integers(30, len(broken), 40):
            broken[place] = random.integers(256)
        try:
            decoded_audio(bytes(broken))
            outcomes.add("decoded")
        except (InvalidInputError, PayloadTooLargeError):
            outcomes.add("refused")
    assert "refused" in outcomes


def test_a_rate_that_no_model_has_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="`rate` is 5; it may be 1000 to 384000"):
        decoded_audio(wav(tone(8000), 8000), rate=5)


def test_a_wav_header_that_claims_no_channels_is_refused() -> None:
    data = bytearray(wav(tone(8000), 8000))
    struct.pack_into("<H", data, 22, 0)
    with pytest.raises(InvalidInputError):
        decoded_audio(bytes(data))
