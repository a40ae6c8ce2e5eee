"""Speech recognition by language models that hear: Voxtral, Granite Speech, Qwen ASR, Qwen2-Audio and others."""

import inspect
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForMultimodalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSpeechSeq2Seq,
    GenerationConfig,
)

from src.core.errors import InvalidInputError, ModelLoadError
from src.inference.engines.transformers.answer_pieces import Said, TokenText
from src.inference.engines.transformers.generation import Prompt, Stopped, generate, logprobs
from src.inference.engines.transformers.speech import Heard, SpeechRunner, has_feature_extractor
from src.inference.engines.transformers.speech_generation import GeneratingSpeechRunner, SpeechPrompt
from src.inference.engines.transformers.speech_seq2seq import language_code
from src.inference.engines.transformers.waveform import Samples
from src.inference.types import JsonObject

_REQUEST = "Transcribe the speech."
_TRANSLATION = "Translate the speech into English."
_MARKS = ("audio_token", "audio_placeholder_token")


class ChatSpeechRunner(GeneratingSpeechRunner):
    """A language model that is asked to transcribe: by its processor's own request, else by a message."""

    unused: tuple[str, ...] = ()

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        if not has_feature_extractor(processor):
            raise ModelLoadError(f"Model '{name}': its processor takes no sound, so it cannot transcribe")
        super().__init__(name, model, processor)

    @classmethod
    def load_model(cls, path: Any, **kwargs: Any) -> Any:
        """Returns the model, by whichever Auto class maps it."""
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=kwargs["trust_remote_code"])
        autos = (AutoModelForSpeechSeq2Seq, AutoModelForMultimodalLM, AutoModelForSeq2SeqLM)
        auto = next((auto for auto in autos if type(config) in auto._model_mapping), autos[0])
        return auto.from_pretrained(path, **kwargs)

    def prompt(self, samples: Samples, options: JsonObject) -> SpeechPrompt:
        """Returns the request to write a piece down."""
        encoded, warnings = self._asked(samples, options)
        inputs, language = self.to_device(encoded), options.get("language")
        ids = inputs["input_ids"][0]
        prompt = Prompt(inputs, text_tokens=len(ids) - self._audio_tokens(ids), offset=len(ids))
        return SpeechPrompt(prompt, language=language and language_code(language), warnings=warnings)

    def _asked(self, samples: Samples, options: JsonObject) -> tuple[Any, list[str]]:
        request = getattr(self.processor, "apply_transcription_request", None)
        if request is None or options.get("task") == "translate":
            return self._by_message(samples, options), []
        takes = inspect.signature(request).parameters
        extra: JsonObject = {"model_id": self.name, "format": "wav"}
        told = {name: value for name, value in extra.items() if name in takes}
        warnings = []
        if language := options.get("language"):
            if "language" in takes:
                told["language"] = language_code(language)
            else:
                warnings.append("option 'language' has no effect: this model finds the language out")
        if "sampling_rate" in takes:
            told["sampling_rate"] = self.rate
        try:
            return request(audio=samples, **told), warnings
        except (KeyError, ValueError) as exc:
            if language:
                raise InvalidInputError(f"option 'language': {exc}") from exc
            raise

    def _by_message(self, samples: Samples, options: JsonObject) -> Any:
        text = _TRANSLATION if options.get("task") == "translate" else _REQUEST
        if language := options.get("language"):
            text += f" It is in {language}."
        mark = next((getattr(self.processor, name) for name in _MARKS if getattr(self.processor, name, None)), "")
        if not (getattr(self.processor, "chat_template", None) or getattr(self.tokenizer, "chat_template", None)):
            return self._encoded_text(f"{mark}{text}", samples)
        parts = [{"type": "audio"}, {"type": "text", "text": text}]
        written = self._templated(parts)
        if mark and mark not in written:  # a template of the tokenizer's takes texts alone
            written = self._templated(f"{mark}{text}")
        return self._encoded_text(written, samples)

    def _templated(self, content: Any) -> str:
        holder = self.processor if getattr(self.processor, "chat_template", None) else self.tokenizer
        messages = [{"role": "user", "content": content}]
        return str(holder.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def _encoded_text(self, text: str, samples: Samples) -> Any:
        takes = inspect.signature(self.processor.__call__).parameters
        name = "audio" if "audio" in takes else "audios"
        return self.processor(text=[text], **{name: [samples]}, return_tensors="pt")

    def _audio_tokens(self, ids: Any) -> int:
        for holder in (self.processor, self.model.config):
            for name in ("audio_token_id", "audio_token_index"):
                if isinstance(token := getattr(holder, name, None), int):
                    return int((ids == token).sum())
        return 0


class FrameSpeechRunner(SpeechRunner):
    """A model that writes a token, or nothing, for each frame of sound as it goes by: Kyutai, Voxtral Realtime."""

    longest = None

    def hear(self, samples: Samples, options: JsonObject, said: Said | None = None) -> Heard:
        """Generates as long as there is sound; the library counts the frames."""
        inputs = self.to_device(self._encoded_sound(samples))
        config = GenerationConfig(do_sample=False, num_beams=1)
        wanted = bool(options.get("logprobs"))
        extra: JsonObject = {"return_dict_in_generate": True, "output_logits": True} if wanted else {}
        if "max_new_tokens" in options:
            extra["max_new_tokens"] = options["max_new_tokens"]
        if said is not None:
            extra["streamer"] = TokenText(self.tokenizer, said)
        output = generate(self.model, inputs, config, [Stopped()], **extra)
        sequences = output.sequences if wanted else output
        start = inputs["input_ids"].shape[1] if "input_ids" in inputs else 1
        ids = sequences[0, start:]
        heard = Heard(self.decoded(ids.tolist()), len(ids))
        heard.cut = len(ids) >= options.get("max_new_tokens", len(ids) + 1)
        if wanted:
            heard.logprobs = logprobs(output.logits, ids)
        return heard

    def _encoded_sound(self, samples: Samples) -> Any:
        # Their processors know one rate and refuse to be told it, or take it for granted.
        return self.processor(audio=samples, return_tensors="pt")

    def _moved(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            # Kyutai's codec computes in float32, whatever the rest does.
            return value.to(self.device, getattr(self.model, "codec_model", self.model).dtype)
        return super()._moved(value)
