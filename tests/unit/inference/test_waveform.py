"""Waveforms: cut, spread and filled up without losing a sample."""

import numpy as np
import pytest

from src.inference.engines.transformers.speech import joined
from src.inference.engines.transformers.waveform import overlapping, pieces_at_quiet_places, samples_of, spread
from tests.tiny_speech import RATE, noise, recording


@pytest.mark.parametrize("seconds", [0.5, 30.0, 30.1, 95.0])
def test_pieces_hold_every_sample_once(seconds: float) -> None:
    samples = noise(seconds)
    pieces = pieces_at_quiet_places(samples, RATE, 30.0)
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), samples)
    assert all(0 < len(piece.samples) <= 30 * RATE for piece in pieces)
    assert [piece.end for piece in pieces[:-1]] == [piece.start for piece in pieces[1:]]
    assert len(pieces) == 1 if seconds <= 30 else len(pieces) > 1


def test_a_cut_lies_in_a_pause() -> None:
    samples = noise(40)
    samples[round(24.0 * RATE) : round(24.3 * RATE)] = 0
    first, _ = pieces_at_quiet_places(samples, RATE, 30.0)
    assert 24.0 < first.end < 24.3
    assert first.quiet_end


def test_a_cut_where_it_is_never_quiet_is_marked() -> None:
    assert not pieces_at_quiet_places(noise(40), RATE, 30.0)[0].quiet_end


def test_without_a_bound_there_is_one_piece() -> None:
    assert len(pieces_at_quiet_places(noise(100), RATE, None)) == 1


@pytest.mark.parametrize("length", [10, 28, 29, 49, 100, 107])
def test_the_own_parts_of_overlapping_windows_make_the_whole(length: int) -> None:
    samples = np.arange(length, dtype=np.float32)
    own = [window[before : len(window) - after] for window, before, after in overlapping(samples, 28, 4)]
    assert np.array_equal(np.concatenate(own), samples)


@pytest.mark.parametrize(("length", "count"), [(5, 1), (10, 1), (11, 2), (20, 2), (21, 3), (95, 10)])
def test_spread_windows_reach_from_start_to_end(length: int, count: int) -> None:
    windows = spread(np.arange(length, dtype=np.float32), 10)
    assert len(windows) == count
    assert set(np.concatenate(windows)) == set(range(length))
    assert len({len(window) for window in windows}) == 1


def test_short_sound_is_filled_up_with_silence() -> None:
    samples = samples_of(recording(np.ones(7, np.float32)), RATE)
    assert len(samples) == 0.2 * RATE
    assert samples.sum() == 7


def test_the_samples_are_not_the_callers_own() -> None:
    shared = noise(1)
    shared.setflags(write=False)
    assert samples_of(recording(shared), RATE).flags.writeable


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (["one", "two"], "one two"),
        (["一二", "三"], "一二三"),
        (["一", "two"], "一 two"),
        (["", " a ", ""], "a"),
        ([], ""),
    ],
)
def test_texts_are_joined_as_their_script_wants(texts: list[str], whole: str) -> None:
    assert joined(texts) == whole
