"""Rows for asr by an encoder and a decoder."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers import (
    AutoFeatureExtractor,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
    CanaryProcessor,
    CohereAsrFeatureExtractor,
    CohereAsrProcessor,
    GenerationConfig,
    MoonshineStreamingProcessor,
    ParakeetFeatureExtractor,
    SeamlessM4TFeatureExtractor,
    SeamlessM4TProcessor,
    Speech2TextFeatureExtractor,
    Speech2TextProcessor,
    SpeechEncoderDecoderModel,
    SpeechT5FeatureExtractor,
    SpeechT5Processor,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    WhisperFeatureExtractor,
    WhisperProcessor,
)

from tests.architectures import shrinking, tokens, weights
from tests.architectures.audio_cases import HEARD, heard_case, saved, tiny_model
from tests.architectures.case import Data, NotTried, Outcome
from tests.architectures.media import Sound
from tests.architectures.tokenizers_by_type import size_of, tokenizer_for
from tests.architectures.waveform_configs import MELS, WAVEFORM

_CANARY_TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}{% if part['type'] == 'text' %}"
    "<|start|>{{ part['source_language'] }} {{ part['target_language'] }}{% endif %}{% endfor %}{% endfor %}"
)
_COHERE_TOKENS = (
    *("▁", "<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", "<|en|>", "<|pnc|>", "<|nopnc|>"),
    *("<|noitn|>", "<|notimestamp|>", "<|nodiarize|>"),
)


def _ids(tokenizer: Any, *, start: str = "bos_token_id") -> Mapping[str, Any]:
    return {
        "vocab_size": size_of(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": getattr(tokenizer, start),
    }


def _finished(folder: Path, model: Any, processor: Any) -> None:
    weights.hush(model, processor.tokenizer.eos_token_id)
    saved(folder, model, processor)


def _whisper(folder: Path) -> None:
    control = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>", "<|startoflm|>"]
    times = [f"<|{place / 50:.2f}|>" for place in range(1501)]
    # Everything behind the last control token is a time to this architecture, so that texts come first.
    tokenizer = tokenizer_for("whisper")
    tokenizer.add_tokens([*control, "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"], special_tokens=True)
    tokenizer.add_tokens(times, special_tokens=False)
    place = tokenizer.convert_tokens_to_ids
    end, start = place("<|endoftext|>"), place("<|startoftranscript|>")
    ids = {"vocab_size": size_of(tokenizer), "pad_token_id": end, "bos_token_id": end, "eos_token_id": end}
    sizes = {"num_mel_bins": MELS, "max_source_positions": 1500, "max_target_positions": 64}
    model = tiny_model("WhisperForConditionalGeneration", "whisper", {**ids, **sizes, "decoder_start_token_id": start})
    model.generation_config = GenerationConfig(
        **{name: value for name, value in ids.items() if name != "vocab_size"},
        decoder_start_token_id=start,
        max_length=64,
        is_multilingual=True,
        lang_to_id={token: place(token) for token in ("<|en|>", "<|de|>")},
        task_to_id={"transcribe": place("<|transcribe|>"), "translate": place("<|translate|>")},
        no_timestamps_token_id=place("<|notimestamps|>"),
        prev_sot_token_id=place("<|startofprev|>"),
        # A random model would write times and control tokens only.
        suppress_tokens=[place(token) for token in [*control, "<|startofprev|>", "<|nospeech|>", *times]],
        begin_suppress_tokens=[end],
    )
    _finished(folder, model, WhisperProcessor(WhisperFeatureExtractor(feature_size=MELS), tokenizer))


def _moonshine(folder: Path) -> None:
    tokenizer = tokens.fast()
    layers = {f"{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("num_hidden_layers",)}
    heads = {
        f"{side}_{name}": 4
        for side in ("encoder", "decoder")
        for name in ("num_attention_heads", "num_key_value_heads")
    }
    model = tiny_model("MoonshineForConditionalGeneration", "moonshine", {**_ids(tokenizer), **layers, **heads})
    _finished(
        folder,
        model,
        Wav2Vec2Processor(Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True), tokenizer),
    )


def _moonshine_streaming(folder: Path) -> None:
    tokenizer = tokens.fast()
    values = {**_ids(tokenizer), "num_key_value_heads": 4}
    model = tiny_model("MoonshineStreamingForConditionalGeneration", "moonshine_streaming", values)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    _finished(folder, model, MoonshineStreamingProcessor(extractor, tokenizer))


def _speech_to_text(folder: Path) -> None:
    tokenizer = tokenizer_for("speech_to_text")
    values = {**_ids(tokenizer, start="eos_token_id"), "conv_channels": 32, "max_source_positions": 200}
    model = tiny_model("Speech2TextForConditionalGeneration", "speech_to_text", values)
    extractor = Speech2TextFeatureExtractor(feature_size=MELS, num_mel_bins=MELS)
    _finished(folder, model, Speech2TextProcessor(extractor, tokenizer))


def _speecht5(folder: Path) -> None:
    tokenizer = tokenizer_for("speecht5")
    convolutions = {"conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    values = {
        **_ids(tokenizer, start="eos_token_id"),
        **convolutions,
        "max_text_positions": 64,
        "max_speech_positions": 64,
    }
    model = tiny_model("SpeechT5ForSpeechToText", "speecht5", values)
    _finished(folder, model, SpeechT5Processor(SpeechT5FeatureExtractor(), tokenizer))


def _seamless(architecture: str, model_type: str, folder: Path) -> None:
    tokenizer = tokenizer_for("seamless_m4t", ["__eng__", "__fra__"])
    sizes = {"speech_encoder_layers": 2, "speech_encoder_attention_heads": 4, "speech_encoder_intermediate_size": 96}
    unit = {f"t2u_{side}_{name}": 2 for side in ("encoder", "decoder") for name in ("layers", "attention_heads")}
    speech = {"feature_projection_input_dim": 160, "conv_depthwise_kernel_size": 7, "vocoder_num_langs": 2}
    values = {**_ids(tokenizer, start="eos_token_id"), **sizes, **unit, **speech, "t2u_vocab_size": 32}
    model = tiny_model(architecture, model_type, values)
    codes = {name: tokenizer.convert_tokens_to_ids(f"__{name}__") for name in ("eng", "fra")}
    told = {name: value for name, value in _ids(tokenizer, start="eos_token_id").items() if name != "vocab_size"}
    model.generation_config = GenerationConfig(**told, text_decoder_lang_to_code_id=codes)
    extractor = SeamlessM4TFeatureExtractor(feature_size=MELS, num_mel_bins=MELS)
    _finished(folder, model, SeamlessM4TProcessor(extractor, tokenizer))


def _composed(folder: Path) -> None:
    tokenizer = tokenizer_for("bart")
    encoder = shrinking.tiny(transformers.Wav2Vec2Config, WAVEFORM["wav2vec2"])
    ids = {name: value for name, value in _ids(tokenizer).items() if name != "decoder_start_token_id"}
    decoder = shrinking.tiny(transformers.BartConfig, {**ids, "is_decoder": True, "add_cross_attention": True})
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = tokenizer.bos_token_id, tokenizer.pad_token_id
    config.eos_token_id = tokenizer.eos_token_id
    weights.seeded()
    model = SpeechEncoderDecoderModel(config=config).eval()
    weights.enliven(model)
    saved(folder, model, Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer)


def _canary(folder: Path) -> None:
    tokenizer = tokens.fast(["<|start|>"])
    sizes = {"num_mel_bins": MELS, "subsampling_conv_channels": 16, "max_position_embeddings": 256}
    values = {**_ids(tokenizer), "encoder_config": sizes, "decoder_config": _ids(tokenizer)}
    model = tiny_model("CanaryForConditionalGeneration", "canary", values)
    processor = CanaryProcessor(ParakeetFeatureExtractor(feature_size=MELS), tokenizer, chat_template=_CANARY_TEMPLATE)
    _finished(folder, model, processor)


def _cohere(folder: Path) -> None:
    tokenizer = tokens.fast(_COHERE_TOKENS)
    sizes = {"num_mel_bins": MELS, "subsampling_conv_channels": 16, "max_position_embeddings": 256}
    model = tiny_model("CohereAsrForConditionalGeneration", "cohere_asr", {**_ids(tokenizer), "encoder_config": sizes})
    extractor = CohereAsrFeatureExtractor(feature_size=MELS, dither=0.0)
    _finished(folder, model, CohereAsrProcessor(extractor, tokenizer))


def _plain(processor: Any, heard: Sound) -> Any:
    return processor(heard.samples, sampling_rate=heard.rate, return_tensors="pt")


def _asked(folder: Path, data: Data, *, prepared: Callable[[Any, Sound], Any] = _plain, **options: Any) -> Outcome:
    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    outcome = tokens.generated(model, processor.tokenizer, prepared(processor, data["audio"]), **options)
    return Outcome(outcome.answer.strip(), outcome.numbers)


def _composed_asked(folder: Path, data: Data) -> Outcome:
    extractor, tokenizer = AutoFeatureExtractor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    model = SpeechEncoderDecoderModel.from_pretrained(folder).eval()
    outcome = tokens.generated(model, tokenizer, _plain(extractor, data["audio"]))
    return Outcome(outcome.answer.strip(), outcome.numbers)


def _with_mask(processor: Any, heard: Sound) -> Any:
    return processor(heard.samples, sampling_rate=heard.rate, return_tensors="pt", return_attention_mask=True)


def _by_name(processor: Any, heard: Sound) -> Any:
    return processor(audio=heard.samples, sampling_rate=heard.rate, return_tensors="pt")


def _in_english(processor: Any, heard: Sound) -> Any:
    encoded = processor(heard.samples, language="en", sampling_rate=heard.rate, return_tensors="pt")
    encoded.pop("audio_chunk_index", None)
    return encoded


def _requested(processor: Any, heard: Sound) -> Any:
    return processor.apply_transcription_request(audio=heard.samples, source_language="en", sampling_rate=heard.rate)


CASES = [
    heard_case(
        "WhisperForConditionalGeneration",
        _whisper,
        partial(_asked, prepared=_with_mask, language="en", task="transcribe"),
        options={**HEARD, "language": "en"},
        quick=True,
    ),
    heard_case("MoonshineForConditionalGeneration", _moonshine, _asked),
    heard_case("MoonshineStreamingForConditionalGeneration", _moonshine_streaming, _asked),
    heard_case("Speech2TextForConditionalGeneration", _speech_to_text, _asked),
    heard_case("SpeechT5ForSpeechToText", _speecht5, partial(_asked, prepared=_by_name)),
    *(
        heard_case(
            name,
            partial(_seamless, name, kind),
            partial(_asked, prepared=_by_name, tgt_lang="eng"),
            options={**HEARD, "language": "en"},
        )
        for name, kind in (
            ("SeamlessM4TForSpeechToText", "seamless_m4t"),
            ("SeamlessM4Tv2ForSpeechToText", "seamless_m4t_v2"),
        )
    ),
    heard_case("SpeechEncoderDecoderModel", _composed, _composed_asked),
    heard_case("CanaryForConditionalGeneration", _canary, partial(_asked, prepared=_requested)),
    heard_case(
        "CohereAsrForConditionalGeneration",
        _cohere,
        partial(_asked, prepared=_in_english),
        options={**HEARD, "language": "en"},
    ),
]
_SOUNDS = "it makes sound: the library maps it as speech to text, but it cannot transcribe"
NOT_TRIED: NotTried = {
    ("asr", "DiaForConditionalGeneration"): _SOUNDS,
    ("asr", "Pop2PianoForConditionalGeneration"): "it writes piano notes: the library maps it as speech to text",
    ("asr", "VibeVoiceForConditionalGeneration"): _SOUNDS,
}
