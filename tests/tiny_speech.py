"""Tiny random models of real architectures that hear, made in a moment from their configs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

RATE = 16_000
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ["the sea swells and ebbs", "open the door please", "seven bells ring at noon", "a quick brown fox", LETTERS]


def noise(seconds: float, seed: int = 0) -> Any:
    """Returns a made-up sound that changes all the time: float32, about -0.5 to 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    swell = np.sin(2 * np.pi * (2 + seed) * time) * np.sin(2 * np.pi * (300 + 200 * np.sin(3 * time)) * time)
    return (0.3 * swell + 0.05 * rng.normal(size=len(time))).astype(np.float32)


def recording(samples: Any) -> dict[str, Any]:
    """Returns samples as decoded audio."""
    return {"samples": samples, "rate": RATE, "seconds": len(samples) / RATE}


def words_tokenizer(**special: str) -> Any:
    """Returns a trained tokenizer of pieces with `▁` at the start of words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    first = ["<unk>", *special.values()]
    trainer = trainers.BpeTrainer(vocab_size=80, special_tokens=first, show_progress=False)
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


def _weights(model: Any, seed: int) -> Any:
    """Makes random weights that answer: spread wider than a fresh model's, which says one thing to everything."""
    import torch

    torch.set_num_threads(1)  # at these sizes threads do nothing but wait for each other
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.parameters():
        if tensor.ndim > 1:
            tensor.data.normal_(0, 0.6 / tensor.shape[-1] ** 0.5 * 2, generator=generator)
    return model.eval()


def saved(folder: Path, model: Any, processor: Any, seed: int = 1) -> Path:
    """Saves a model with random weights, and its processor."""
    _weights(model, seed).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _letter_processor(folder: Path, **options: Any) -> Any:
    """Returns a processor of raw samples and letters, with `|` between words."""
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    return Wav2Vec2Processor(Wav2Vec2FeatureExtractor(**options), Wav2Vec2CTCTokenizer(str(folder / "vocab.json")))


def convolutions(config: type, **more: Any) -> Any:
    """Returns a tiny config of the Wav2Vec2 kind: a frame for each 20 ms."""
    return config(
        vocab_size=31,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 4),
        conv_stride=(10, 8, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        num_feat_extract_layers=3,
        mask_time_prob=0.0,
        pad_token_id=0,
        **more,
    )


# Each frame is normalised by itself, as in the large ones: only such a model takes sounds that are filled up.
BY_FRAME: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def wav2vec2(folder: Path, *, by_frame: bool = False) -> Path:
    """Saves a Wav2Vec2 that spells."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = convolutions(Wav2Vec2Config, **(BY_FRAME if by_frame else {}))
    return saved(folder, Wav2Vec2ForCTC(config), _letter_processor(folder, return_attention_mask=True))


def hubert(folder: Path) -> Path:
    """Saves a HuBERT that spells."""
    from transformers import HubertConfig, HubertForCTC

    return saved(folder, HubertForCTC(convolutions(HubertConfig)), _letter_processor(folder), seed=2)


def _parakeet(folder: Path, kind: str) -> Path:
    from transformers import (
        ParakeetCTCConfig,
        ParakeetEncoderConfig,
        ParakeetFeatureExtractor,
        ParakeetForCTC,
        ParakeetForRNNT,
        ParakeetForTDT,
        ParakeetProcessor,
        ParakeetRNNTConfig,
        ParakeetTDTConfig,
        ParakeetTokenizer,
    )

    tokenizer = ParakeetTokenizer(
        tokenizer_object=words_tokenizer(pad="<pad>", blank="<blank>"), pad_token="<pad>", unk_token="<unk>"
    )
    encoder = ParakeetEncoderConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=32,
        subsampling_conv_channels=8,
        num_mel_bins=40,
        max_position_embeddings=5000,
    )
    size, pad = len(tokenizer), tokenizer.pad_token_id
    shared: dict[str, Any] = {"encoder_config": encoder, "vocab_size": size, "pad_token_id": pad}
    decoder = {"decoder_hidden_size": 24, "num_decoder_layers": 1, "blank_token_id": 2}
    models: dict[str, Callable[[], Any]] = {
        "ctc": lambda: ParakeetForCTC(ParakeetCTCConfig(**shared)),
        "rnnt": lambda: ParakeetForRNNT(ParakeetRNNTConfig(**shared, **decoder)),
        "tdt": lambda: ParakeetForTDT(ParakeetTDTConfig(**shared, **decoder, durations=[0, 1, 2, 3, 4])),
    }
    processor = ParakeetProcessor(ParakeetFeatureExtractor(feature_size=40), tokenizer, decoder_type=kind)
    model = models[kind]()
    if kind != "ctc":
        model.generation_config.decoder_start_token_id = 2
        model.joint.head.bias.data[2] = 2.0  # one that is never silent never comes to the end
    return saved(folder, model, processor)


def parakeet_ctc(folder: Path) -> Path:
    """Saves a Parakeet with a CTC head."""
    return _parakeet(folder, "ctc")


def parakeet_rnnt(folder: Path) -> Path:
    """Saves a Parakeet with an RNN-T decoder."""
    return _parakeet(folder, "rnnt")


def parakeet_tdt(folder: Path) -> Path:
    """Saves a Parakeet with a TDT decoder."""
    return _parakeet(folder, "tdt")


def _text_tokenizer() -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=words_tokenizer(pad="<pad>", bos="<s>", eos="</s>"),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


_TOKENS = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}


def moonshine(folder: Path) -> Path:
    """Saves a Moonshine."""
    from transformers import (
        MoonshineConfig,
        MoonshineForConditionalGeneration,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Processor,
    )

    tokenizer = _text_tokenizer()
    config = MoonshineConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=32,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=2,
        decoder_num_attention_heads=2,
        **_TOKENS,
    )
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    return saved(folder, MoonshineForConditionalGeneration(config), Wav2Vec2Processor(extractor, tokenizer))


def _sentencepiece(folder: Path, kind: str) -> Path:
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n".join(WORDS * 20))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"),
        model_prefix=str(folder / "pieces"),
        vocab_size=60 if kind == "bpe" else 33,
        model_type=kind,
        bos_id=0,
        pad_id=1,
        eos_id=2,
        unk_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "text.txt").unlink()
    return folder / "pieces.model"


def speech_to_text(folder: Path) -> Path:
    """Saves a Speech2Text."""
    from sentencepiece import SentencePieceProcessor
    from transformers import (
        Speech2TextConfig,
        Speech2TextFeatureExtractor,
        Speech2TextForConditionalGeneration,
        Speech2TextProcessor,
        Speech2TextTokenizer,
    )

    model = _sentencepiece(folder, "bpe")
    pieces = SentencePieceProcessor(model_file=str(model))
    vocabulary = {pieces.id_to_piece(index): index for index in range(len(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = Speech2TextTokenizer(str(folder / "vocab.json"), str(model))
    config = Speech2TextConfig(
        vocab_size=len(vocabulary),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        conv_channels=32,
        input_feat_per_channel=40,
        max_target_positions=256,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    extractor = Speech2TextFeatureExtractor(feature_size=40, num_mel_bins=40)
    return saved(folder, Speech2TextForConditionalGeneration(config), Speech2TextProcessor(extractor, tokenizer))


def speecht5(folder: Path) -> Path:
    """Saves a SpeechT5 that hears."""
    from transformers import (
        SpeechT5Config,
        SpeechT5FeatureExtractor,
        SpeechT5ForSpeechToText,
        SpeechT5Processor,
        SpeechT5Tokenizer,
    )

    tokenizer = SpeechT5Tokenizer(str(_sentencepiece(folder, "char")))
    config = SpeechT5Config(
        vocab_size=len(tokenizer),
        hidden_size=24,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        conv_dim=(16, 16, 16),
        conv_kernel=(10, 8, 4),
        conv_stride=(10, 8, 4),
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
        mask_time_prob=0.0,
        apply_spec_augment=False,
    )
    return saved(folder, SpeechT5ForSpeechToText(config), SpeechT5Processor(SpeechT5FeatureExtractor(), tokenizer))


def speech_encoder_decoder(folder: Path) -> Path:
    """Saves a Wav2Vec2 that speaks to a BART; its folder names no processor for the two."""
    from transformers import (
        BartConfig,
        SpeechEncoderDecoderConfig,
        SpeechEncoderDecoderModel,
        Wav2Vec2Config,
        Wav2Vec2FeatureExtractor,
    )

    tokenizer = _text_tokenizer()
    decoder = BartConfig(
        vocab_size=len(tokenizer),
        d_model=24,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        max_position_embeddings=256,
        is_decoder=True,
        add_cross_attention=True,
        **_TOKENS,
    )
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(convolutions(Wav2Vec2Config), decoder, **_TOKENS)
    model = SpeechEncoderDecoderModel(config=config)
    model.generation_config.update(**_TOKENS)
    saved(folder, model, tokenizer)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def whisper(folder: Path, *, multilingual: bool = True, seconds: int = 5) -> Path:
    """Saves a random Whisper with the tokenizer of `demo-asr`; the English one has no languages and no tasks."""
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    from tests.service import ROOT

    known = WhisperProcessor.from_pretrained(ROOT / "samples" / "demo-asr", local_files_only=True)
    own = GenerationConfig.from_pretrained(ROOT / "samples" / "demo-asr", local_files_only=True)
    own.alignment_heads = [[1, 0], [1, 1]]
    if not multilingual:
        own.is_multilingual = False
        for name in ("lang_to_id", "task_to_id", "task", "alignment_heads"):
            delattr(own, name)
    config = WhisperConfig(
        vocab_size=len(known.tokenizer),
        num_mel_bins=40,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=50 * seconds,
        max_target_positions=64,
        suppress_tokens=[],
        begin_suppress_tokens=[],
        pad_token_id=own.pad_token_id,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
        decoder_start_token_id=own.decoder_start_token_id,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = own
    extractor = WhisperFeatureExtractor(feature_size=40, chunk_length=seconds)
    return saved(folder, model, WhisperProcessor(extractor, known.tokenizer))
