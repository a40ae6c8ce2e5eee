"""Tiny random models of real architectures that classify sound, made in a moment from their configs."""

from pathlib import Path
from typing import Any

from tests.tiny_speech import BY_FRAME, convolutions, saved

LABELS = ("bell", "sea", "door", "fox")
NAMED: dict[str, Any] = {
    "num_labels": len(LABELS),
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: place for place, label in enumerate(LABELS)},
}


def wav2vec2(folder: Path, *, by_frame: bool = False) -> Path:
    """Saves a Wav2Vec2 that classifies."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    config = convolutions(Wav2Vec2Config, **NAMED, classifier_proj_size=16, **(BY_FRAME if by_frame else {}))
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=by_frame)
    return saved(folder, Wav2Vec2ForSequenceClassification(config), extractor)


def hubert(folder: Path) -> Path:
    """Saves a HuBERT that classifies."""
    from transformers import HubertConfig, HubertForSequenceClassification, Wav2Vec2FeatureExtractor

    config = convolutions(HubertConfig, **NAMED, classifier_proj_size=16)
    return saved(folder, HubertForSequenceClassification(config), Wav2Vec2FeatureExtractor(), seed=2)


def spectrogram(folder: Path, problem_type: str | None = None) -> Path:
    """Saves an Audio Spectrogram Transformer that hears a little more than a second."""
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    config = ASTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_mel_bins=32,
        max_length=106,
        problem_type=problem_type,
        **NAMED,
    )
    return saved(folder, ASTForAudioClassification(config), ASTFeatureExtractor(num_mel_bins=32, max_length=106))


def whisper_encoder(folder: Path) -> Path:
    """Saves a Whisper that classifies what its encoder hears in two seconds."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForAudioClassification

    config = WhisperConfig(
        vocab_size=20,
        num_mel_bins=40,
        d_model=24,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=100,
        classifier_proj_size=16,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=2,
        **NAMED,
    )
    return saved(
        folder, WhisperForAudioClassification(config), WhisperFeatureExtractor(feature_size=40, chunk_length=2)
    )
