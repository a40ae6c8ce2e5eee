"""Rows for asr by models that write a token for each frame of sound as it goes by."""

from pathlib import Path

import torch
from transformers import (
    AutoProcessor,
    GenerationConfig,
    KyutaiSpeechToTextFeatureExtractor,
    KyutaiSpeechToTextForConditionalGeneration,
    KyutaiSpeechToTextProcessor,
)

from tests.architectures import tokens
from tests.architectures.audio_cases import HEARD, heard_case, saved, tiny_model
from tests.architectures.case import Data, NotTried, Outcome

_RATE = 24000
_CODES, _BOOKS = 32, 4


def _kyutai(folder: Path) -> None:
    tokenizer = tokens.fast()
    size = len(tokenizer)
    codec = {
        "hidden_size": 32,
        "num_filters": 4,
        "codebook_size": _CODES,
        "codebook_dim": 16,
        "num_quantizers": _BOOKS,
        "vector_quantization_hidden_dimension": 16,
        "upsample_groups": 32,
    }
    values = {
        "vocab_size": size,
        "codebook_vocab_size": _CODES + 1,
        "num_codebooks": _BOOKS,
        "audio_bos_token_id": _CODES,
        "audio_pad_token_id": size + _BOOKS * (_CODES + 1),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "codec_config": codec,
    }
    model = tiny_model("KyutaiSpeechToTextForConditionalGeneration", "kyutai_speech_to_text", values)
    # Codebooks that nobody trained are all zeros, so that every sound would get the same code.
    for name, buffer in model.named_buffers():
        if name.endswith("embed_sum"):
            torch.nn.init.normal_(buffer)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, audio_window_size=2, max_length=64
    )
    saved(folder, model, KyutaiSpeechToTextProcessor(KyutaiSpeechToTextFeatureExtractor(), tokenizer))


def _asked(folder: Path, data: Data) -> Outcome:
    processor = AutoProcessor.from_pretrained(folder)
    model = KyutaiSpeechToTextForConditionalGeneration.from_pretrained(folder).eval()
    inputs = processor(audio=data["audio"].samples, return_tensors="pt")
    outcome = tokens.generated(model, processor.tokenizer, inputs)
    return Outcome(outcome.answer.strip(), outcome.numbers)


CASES = [heard_case("KyutaiSpeechToTextForConditionalGeneration", _kyutai, _asked, rate=_RATE, options=HEARD)]
_TOKENIZERS = "it hears through two codecs of hundreds of millions of parameters, whose sizes do not shrink together"
NOT_TRIED: NotTried = {("asr", "VibeVoiceAsrForConditionalGeneration"): _TOKENIZERS}
