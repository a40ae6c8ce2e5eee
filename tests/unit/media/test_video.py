"""A few frames of a video: the right ones, upright, with their times, whatever its header says."""

import struct

import numpy as np
import pytest

from src.core.errors import InvalidInputError, PayloadTooLargeError
from src.core.settings_sections import MediaSettings
from src.media.sampling import by_rate, evenly
from tests.unit.media.decoding import decoded_video
from tests.unit.media.media_files import box, index_first, noise, patched, shades, slowed, sound, told, tone, video

COUNT = 50
CODECS = [
    ("mp4", "libx264"),
    ("mp4", "libx265"),
    ("mp4", "libsvtav1"),
    ("mov", "mpeg4"),
    ("webm", "libvpx"),
    ("webm", "libvpx-vp9"),
    ("matroska", "libx264"),
    ("avi", "mpeg4"),
    ("avi", "libx264"),
]


def places(frames: "np.typing.NDArray[np.uint8]") -> list[int]:
    """Returns which of the shades each frame is."""
    return [round(float(frame.mean()) / 5) for frame in frames]


@pytest.mark.parametrize(("container", "codec"), CODECS)
def test_frames_spread_evenly_are_the_right_ones(container: str, codec: str) -> None:
    seen = decoded_video(video(shades(COUNT), container, codec), num_frames=7)
    assert seen.indices == (0, 8, 16, 24, 32, 40, 49)
    assert np.abs(np.subtract(places(seen.frames), seen.indices)).max() <= 1
    assert seen.timestamps == pytest.approx([place / 25 for place in seen.indices], abs=0.002)
    assert seen.frames.shape == (7, 48, 64, 3)
    assert seen.frames.dtype == np.uint8
    assert (seen.total_frames, seen.warnings) == (COUNT, ())
    assert seen.fps == pytest.approx(25, rel=0.01)
    assert seen.duration == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("group", [1, 5, 250])
@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("matroska", "libx265"), ("webm", "libvpx-vp9")])
def test_frames_picked_out_are_those_that_decoding_everything_gives(group: int, container: str, codec: str) -> None:
    data = video(shades(40), container, codec, group=group)
    everything = decoded_video(data, num_frames=40)
    assert np.abs(np.subtract(places(everything.frames), range(40))).max() <= 1
    for count in (2, 3, 6, 11):
        some = decoded_video(data, num_frames=count)
        assert np.array_equal(some.frames, everything.frames[list(some.indices)])


def test_a_video_shorter_than_asked_gives_all_that_it_has() -> None:
    assert decoded_video(video(shades(3)), num_frames=8).indices == (0, 1, 2)


def test_without_a_wish_eight_frames_are_taken() -> None:
    assert len(decoded_video(video(shades(COUNT))).frames) == 8


def test_frames_by_rate_are_those_seen_at_each_moment() -> None:
    seen = decoded_video(video(shades(COUNT)), fps=5)
    assert seen.indices == tuple(range(0, 50, 5))


def test_a_rate_with_a_number_of_frames_takes_no_more_than_that() -> None:
    assert decoded_video(video(shades(COUNT)), fps=25, num_frames=4).indices == (0, 16, 32, 49)


def test_more_frames_than_the_bound_are_refused_with_what_to_ask_for() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"50 frames at 25 per second.*`num_frames`.*media.max_video_frames"):
        decoded_video(video(shades(COUNT)), MediaSettings(max_video_frames=20), fps=25)
    with pytest.raises(InvalidInputError, match=r"`num_frames` is 65; it may be 1 to 64"):
        decoded_video(b"", num_frames=65)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_a_video_of_a_phone_held_upright_is_turned(angle: int, turns: int) -> None:
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 255
    data = video([frame] * 5)
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][angle // 90]
    matrix = [cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30]
    turned = patched(data, box(data, b"tkhd") + 40, struct.pack(">9i", *matrix))
    seen = decoded_video(turned, num_frames=1).frames[0]
    expected = np.rot90(frame, -turns)
    assert seen.shape == expected.shape
    assert np.abs(seen.astype(int) - expected).mean() < 12


def test_frames_that_are_too_many_pixels_together_are_scaled_and_it_is_said() -> None:
    seen = decoded_video(video(shades(COUNT)), MediaSettings(max_pixels=10_000), num_frames=8)
    _, height, width, _ = seen.frames.shape
    assert 8 * height * width <= 10_000
    assert width / height == pytest.approx(64 / 48, abs=0.1)
    assert np.abs(np.subtract(places(seen.frames), seen.indices)).max() <= 1
    assert "scaled" in seen.warnings[0]


def test_a_frame_past_the_bound_of_pixels_is_refused() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"media\.max_pixels"):
        decoded_video(video(shades(5)), MediaSettings(max_pixels=3000))


def test_a_header_that_tells_of_ten_hours_is_refused_as_it_says() -> None:
    with pytest.raises(
        PayloadTooLargeError, match=r"is 36,000 s long; at most 600 are taken \(media.max_video_seconds\)"
    ):
        decoded_video(told(video(shades(COUNT), "webm", "libvpx"), 36_000))


def test_frames_that_a_header_spreads_over_ten_hours_are_refused() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"media\.max_video_seconds"):
        decoded_video(slowed(video(shades(COUNT)), 18_000))


def test_frames_that_an_edit_list_cuts_away_are_not_seen() -> None:
    data = video(shades(COUNT))
    place = box(data, b"elst") + 8
    _, start = struct.unpack_from(">Ii", data, place)
    trimmed = patched(data, place, struct.pack(">Ii", 1000, start + 5 * 512))
    seen = decoded_video(trimmed, num_frames=3)
    assert seen.total_frames == 25
    assert np.abs(np.subtract(places(seen.frames), [5, 17, 29])).max() <= 1


def test_a_header_that_tells_of_less_than_there_is_does_not_get_past_the_bound() -> None:
    with pytest.raises(PayloadTooLargeError, match=r"media\.max_video_seconds"):
        decoded_video(told(video(shades(COUNT), "webm", "libvpx"), 0.1), MediaSettings(max_video_seconds=1))


def test_a_header_that_tells_of_less_than_there_is_hides_nothing() -> None:
    seen = decoded_video(told(video(shades(COUNT), "webm", "libvpx"), 0.1), num_frames=5)
    assert seen.indices[-1] == seen.total_frames - 1 == COUNT - 1
    assert seen.duration == pytest.approx(2.0, abs=0.05)


def test_a_header_that_tells_of_more_than_there_is_is_a_video_cut_off() -> None:
    data = told(video(shades(COUNT), "webm", "libvpx"), 300)
    with pytest.raises(
        InvalidInputError, match=r"is cut off: its header tells of 300.0 s, and 50 frames \(2.0 s\) are"
    ):
        decoded_video(data)


def test_a_size_that_only_the_container_has_is_not_believed() -> None:
    data = video(shades(COUNT))
    entry = data.rindex(b"avc1") + 28
    assert decoded_video(patched(data, entry, struct.pack(">HH", 60_000, 60_000))).frames.shape[1:] == (48, 64, 3)


@pytest.mark.parametrize(("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")])
def test_a_video_that_is_cut_off_is_refused(container: str, codec: str) -> None:
    data = video([noise(48, 64, seed) for seed in range(COUNT)], container, codec)
    data = index_first(data) if container == "mp4" else data
    assert decoded_video(data).total_frames == COUNT
    with pytest.raises(InvalidInputError, match=r"`video`.*(cut off|damaged|cannot be read)"):
        decoded_video(data[: len(data) // 2])


def test_an_mp4_without_its_index_is_refused() -> None:
    data = video(shades(COUNT))
    with pytest.raises(InvalidInputError, match="cannot be read"):
        decoded_video(data[: data.index(b"moov")])


def test_sound_alone_is_no_video() -> None:
    data = sound(tone(48_000), 48_000, "webm", "libopus")
    with pytest.raises(InvalidInputError, match="has no picture track; as a video this takes mp4/mov, webm/mkv, avi"):
        decoded_video(data)


@pytest.mark.parametrize(
    "playlist",
    [
        b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
    ],
)
def test_a_playlist_that_names_files_is_no_video(playlist: bytes) -> None:
    with pytest.raises(InvalidInputError, match="is a playlist; as a video this takes"):
        decoded_video(playlist)
    with pytest.raises(InvalidInputError):
        decoded_video(b"\0\0\0\x18ftypisom\0\0\0\0isomisom" + playlist)


def test_damaged_bytes_never_come_out_as_another_kind_of_error() -> None:
    data, random = video(shades(20)), np.random.default_rng(3)
    outcomes = set()
    for _ in range(60):
        broken = bytearray(data)
        for place in random.integers(12, len(broken), 6):
            broken[place] = random.integers(256)
        try:
            decoded_video(bytes(broken), MediaSettings(max_pixels=1_000_000), num_frames=3)
            outcomes.add("decoded")
        except (InvalidInputError, PayloadTooLargeError):
            outcomes.add("refused")
    assert outcomes == {"decoded", "refused"}


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [(10, 1, [5]), (10, 2, [0, 9]), (10, 3, [0, 4, 9]), (3, 8, [0, 1, 2]), (1, 1, [0])],
)
def test_places_spread_evenly(total: int, count: int, expected: list[int]) -> None:
    assert evenly(total, count) == expected


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(1, [0, 4]), (2, [0, 2, 4]), (4, [0, 1, 2, 3, 4]), (100, [0, 1, 2, 3, 4]), (0.1, [0])],
)
def test_places_by_rate(fps: float, expected: list[int]) -> None:
    assert by_rate([0.0, 0.25, 0.5, 0.75, 1.0], fps) == expected


def test_a_frame_that_stays_long_is_taken_once() -> None:
    assert by_rate([0.0, 0.1, 5.0], 1) == [0, 1, 2]
