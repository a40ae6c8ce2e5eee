"""Examines the committed speech model on sentences and voices that its training never heard."""

import random
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

from samples.inputs.speech import RATE, SOUNDS, Utterance, Waveform, draw_utterance, draw_voice, silence, speak
from samples.inputs.split import is_held_out
from samples.train_demo_asr import DIGITS, exam
from samples.training import share_right

FOLDER = Path(__file__).parents[2] / "samples" / "demo-asr"
SENTENCES = {language: exam(100, language, random.Random(f"test {language}")) for language in SOUNDS}


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForSpeechSeq2Seq.from_pretrained(FOLDER, local_files_only=True).eval()


def transcribe(model: Any, processor: Any, audio: list[Waveform], **options: Any) -> list[str]:
    features = processor(audio, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
    tokens = model.generate(**features, **options)
    return [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]


def audio_of(utterances: list[Utterance]) -> list[Waveform]:
    return [utterance.audio for utterance in utterances]


@pytest.mark.parametrize("language", list(SOUNDS))
@pytest.mark.parametrize("told", [True, False], ids=["language told", "language heard"])
def test_writes_down_nine_held_out_sentences_in_ten(
    model: Any, processor: Any, language: str, told: bool, figure: Callable[[str], None]
) -> None:
    sentences = SENTENCES[language]
    options = {"language": language, "task": "transcribe"} if told else {}
    score = share_right(transcribe(model, processor, audio_of(sentences), **options), [s.text for s in sentences])
    figure(f"{score:.1%} of {len(sentences)} held-out sentences in {language} written down exactly")
    assert score >= 0.9


def test_translates_what_is_said_in_mandarin(model: Any, processor: Any) -> None:
    sentences = SENTENCES["zh"]
    english = [" ".join(DIGITS[word] for word in sentence.words) for sentence in sentences]
    assert (
        share_right(transcribe(model, processor, audio_of(sentences), language="zh", task="translate"), english) >= 0.8
    )


@pytest.mark.parametrize("language", list(SOUNDS))
def test_silence_brings_it_down_to_guessing(model: Any, processor: Any, language: str) -> None:
    rng = random.Random("silence")
    texts = transcribe(model, processor, [silence(rng) for _ in SENTENCES[language]])
    assert share_right(texts, [sentence.text for sentence in SENTENCES[language]]) <= 0.05
    assert share_right(texts, [""] * len(texts)) >= 0.8


def test_timestamps_enclose_the_words(model: Any, processor: Any) -> None:
    utterances = SENTENCES["en"][:40]
    features = processor(audio_of(utterances), sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
    tokens = model.generate(**features, return_timestamps=True)
    close = 0
    for row, utterance in zip(tokens, utterances, strict=True):
        offsets = processor.tokenizer.decode(row.tolist(), output_offsets=True)["offsets"]
        start, end = (offsets[0]["timestamp"][0], offsets[-1]["timestamp"][1]) if offsets else (-1, -1)
        close += abs(start - utterance.spans[0][0]) < 0.15 and abs(end - utterance.spans[-1][1]) < 0.15
    assert close / len(utterances) >= 0.8


def test_follows_a_recording_longer_than_its_window(model: Any, processor: Any) -> None:
    rng = random.Random("long")
    right, said = 0, 0
    for _ in range(4):
        utterance = speak(rng.choices(list(SOUNDS["en"]), k=24), "en", draw_voice(rng, held_out=True), rng)
        assert len(utterance.audio) > 9 * RATE
        features = processor(
            utterance.audio,
            sampling_rate=RATE,
            return_tensors="pt",
            truncation=False,
            padding="longest",
            return_attention_mask=True,
        )
        tokens = model.generate(**features, return_timestamps=True, language="en", task="transcribe")
        words = processor.batch_decode(tokens, skip_special_tokens=True)[0].split()
        said += len(utterance.words)
        matches = SequenceMatcher(None, words, utterance.words).get_matching_blocks()
        right += sum(match.size for match in matches)
    # A word that straddles two windows may be lost.
    assert right / said >= 0.8


def test_exam_holds_neither_a_sentence_nor_a_voice_of_training() -> None:
    assert all(is_held_out(" ".join(s.words)) for sentences in SENTENCES.values() for s in sentences)
    rng = random.Random(5)
    for _ in range(300):
        words = draw_utterance(rng, held_out=False, most=2).words
        assert len(words) == 1 or not is_held_out(" ".join(words))
        assert not draw_voice(rng, held_out=False).held_out


def test_a_fifth_of_the_voices_or_less_is_held_out() -> None:
    rng = random.Random(6)
    drawn = [draw_voice(rng, held_out=rng.random() < 0.5) for _ in range(50)]
    assert len({voice.held_out for voice in drawn}) == 2


def test_speech_is_the_same_by_seed_and_differs_by_voice() -> None:
    first, same, other = (
        speak(["seven"], "en", draw_voice(random.Random(seed), held_out=False), random.Random(1)).audio
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, same)
    assert len(first) != len(other) or not np.allclose(first, other)


def test_every_word_is_one_token(processor: Any) -> None:
    for language, words in SOUNDS.items():
        for word in words:
            text = word if language == "zh" else f" {word}"
            assert len(processor.tokenizer(text, add_special_tokens=False).input_ids) == 1, word
