"""Speech recognition by an encoder and a decoder: Moonshine, SpeechT5, Speech2Text, Canary and others."""

from typing import Any

import numpy as np
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.generation import Prompt
from src.inference.engines.transformers.speech_generation import GeneratingSpeechRunner, SpeechPrompt
from src.inference.engines.transformers.waveform import Samples
from src.inference.types import JsonObject

# ISO 639-1 to the three letters that SeamlessM4T goes by, where its own are not those of ISO 639-3.
_SEAMLESS = (
    "ar:arb bn:ben ca:cat cs:ces da:dan de:deu el:ell en:eng es:spa fa:pes fi:fin fr:fra he:heb hi:hin hu:hun id:ind "
    "it:ita ja:jpn ko:kor ms:zsm nl:nld no:nob pl:pol pt:por ro:ron ru:rus sv:swe sw:swh ta:tam te:tel th:tha tr:tur "
    "uk:ukr ur:urd vi:vie zh:cmn"
)
SEAMLESS_CODES = dict(pair.split(":") for pair in _SEAMLESS.split())
ASSUMED = "en"
_TRACE = 3e-5


class Seq2SeqSpeechRunner(GeneratingSpeechRunner):
    """A model whose decoder writes what its encoder hears."""

    def prompt(self, samples: Samples, options: JsonObject) -> SpeechPrompt:
        """Returns what the encoder hears, and what the decoder is told."""
        inputs, extra, language = self.prepared(samples, options)
        prompt = Prompt(inputs, text_tokens=0, offset=self._offset(inputs, extra))
        return SpeechPrompt(prompt, extra, language, self.notes(options))

    def prepared(self, samples: Samples, options: JsonObject) -> tuple[dict[str, Any], JsonObject, str | None]:
        """Returns the model's inputs, what else `generate` is told, and the language where it is known."""
        return self.encoded(samples), {}, None

    def notes(self, options: JsonObject) -> list[str]:
        """Returns warnings of the architecture's own."""
        return []

    def _offset(self, inputs: dict[str, Any], extra: JsonObject) -> int:
        """Returns how many tokens stand before the answer: the decoder's start, and what it is told."""
        told = inputs.get("decoder_input_ids")
        if "tgt_lang" in extra:
            return 2  # generate() sets the start token before the language
        if told is None:
            return 1
        start = self.model.generation_config.decoder_start_token_id
        return int(told.shape[1]) + int(start is not None and int(told[0, 0]) != start)


class Speech2TextRunner(Seq2SeqSpeechRunner):
    """Speech2Text: its features are divided by how much they vary, which digital silence does not."""

    def encoded(self, samples: Samples, **options: Any) -> dict[str, Any]:
        """Returns features; a trace of noise, 90 dB down and always the same, stands in for digital silence."""
        if not np.ptp(samples):
            samples = samples + np.random.default_rng(0).normal(0, _TRACE, len(samples)).astype(np.float32)
        return super().encoded(samples, **options)


class CanaryRunner(Seq2SeqSpeechRunner):
    """Canary: told the language that it hears, and the one that it writes."""

    unused: tuple[str, ...] = ()

    def prepared(self, samples: Samples, options: JsonObject) -> tuple[dict[str, Any], JsonObject, str | None]:
        """Returns what the chat template makes of the languages."""
        source = options.get("language") or ASSUMED
        target = "en" if options.get("task") == "translate" else source
        try:
            encoded = self.processor.apply_transcription_request(
                audio=samples, source_language=source, target_language=target, sampling_rate=self.rate
            )
        except ValueError as exc:
            raise InvalidInputError(f"option 'language': {exc}") from exc
        return self.to_device(encoded), {}, language_code(source)

    def notes(self, options: JsonObject) -> list[str]:
        """Tells of the language that was assumed."""
        return assumed(options)


class CohereAsrRunner(Seq2SeqSpeechRunner):
    """Cohere's speech recognition: told the language that it hears."""

    unused: tuple[str, ...] = ()

    def prepared(self, samples: Samples, options: JsonObject) -> tuple[dict[str, Any], JsonObject, str | None]:
        """Returns features and the decoder's prompt."""
        language = language_code(options.get("language") or ASSUMED)
        try:
            encoded = self.processor(samples, language=language, sampling_rate=self.rate, return_tensors="pt")
        except ValueError as exc:
            raise InvalidInputError(f"option 'language': {exc}") from exc
        # It cuts what is longer than it hears at once; a piece never is.
        encoded.pop("audio_chunk_index", None)
        return self.to_device(encoded), {}, language

    def notes(self, options: JsonObject) -> list[str]:
        """Tells of the language that was assumed, and that nothing is translated."""
        translated = ["option 'task': this model cannot translate"] if options.get("task") == "translate" else []
        return assumed(options) + translated


class SeamlessRunner(Seq2SeqSpeechRunner):
    """SeamlessM4T: hears any of its languages by itself, and must be told which to write."""

    unused: tuple[str, ...] = ()

    def prepared(self, samples: Samples, options: JsonObject) -> tuple[dict[str, Any], JsonObject, str | None]:
        """Returns features, and the language to write; raises `InvalidInputError` where nobody named it."""
        known = self._known()
        language = options.get("language")
        if options.get("task") == "translate":
            code = SEAMLESS_CODES[ASSUMED]
        elif language:
            code = SEAMLESS_CODES.get(language_code(language), language.lower())
        else:
            raise InvalidInputError(f"this model needs option 'language', one of {some(known)}")
        if code not in known:
            raise InvalidInputError(
                f"option 'language': '{language or code}' is none of this model's: it has {some(known)}",
                details={"languages": known},
            )
        return self.encoded(samples), {"tgt_lang": code}, language and language_code(language)

    def needed(self) -> JsonObject:
        """Returns a language."""
        return {"language": next(iter(self._known()), ASSUMED)}

    def _known(self) -> list[str]:
        return list(getattr(self.model.generation_config, "text_decoder_lang_to_code_id", None) or {})


def language_code(language: str) -> str:
    """Returns the code of a language's name, `zh` for `chinese` and `zh-TW`; others as they are, in small letters."""
    name = language.strip().lower().removeprefix("<|").removesuffix("|>")
    return TO_LANGUAGE_CODE.get(name) or name.replace("_", "-").partition("-")[0]


def some(languages: list[str]) -> str:
    """Returns languages as a list for people, not too long a one."""
    return ", ".join(sorted(languages)[:20]) + (" …" if len(languages) > 20 else "")


def assumed(options: JsonObject) -> list[str]:
    """Returns a warning where a model that must be told a language was told none."""
    if options.get("language"):
        return []
    return [f"option 'language' is not set and this model cannot tell: '{ASSUMED}' is assumed"]
