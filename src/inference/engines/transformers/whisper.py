"""Whisper: many languages, translation, times of segments and words, recordings of any length."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.generation import EXACT, Stopped, logprobs, seed
from src.inference.engines.transformers.speech import Heard, SpeechRunner, token_budget
from src.inference.engines.transformers.speech_seq2seq import language_code, some
from src.inference.engines.transformers.waveform import Samples
from src.inference.engines.transformers.whisper_windows import Budget, Window, windows_of, within
from src.inference.options import TransformersOptions, default_of
from src.inference.types import JsonObject

# What stands before an answer: its start, the language, the task, and whether there are times.
_PROMPT_TOKENS = 4
_TIME_STEP = 0.02


@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked for, as far as it can do it; `language` is a code, None until it is heard."""

    language: str | None
    task: str | None
    times: bool
    words: bool
    warnings: list[str]


class WhisperRunner(SpeechRunner):
    """A Whisper, English or multilingual; the library's own long-form generation follows long recordings."""

    unused: tuple[str, ...] = ("eos_token_id", "pad_token_id")

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        own = model.generation_config
        self._languages = dict(getattr(own, "lang_to_id", None) or {})
        self._tasks = dict(getattr(own, "task_to_id", None) or {})
        self._multilingual = getattr(own, "is_multilingual", None)
        self._has_times = getattr(own, "no_timestamps_token_id", None) is not None
        # Without time tokens it cannot follow a long recording by itself.
        self.longest = None if self._has_times else float(processor.feature_extractor.chunk_length)

    def hear(self, samples: Samples, options: JsonObject) -> Heard:
        """Generates the text of a recording; it finds the language out first where nobody told it."""
        seed(options)
        request = self._request(options)
        inputs = self._features(samples)
        language = request.language or self._heard_language(inputs["input_features"])
        told: JsonObject = {}
        if self._multilingual is not False:
            told = {name: value for name, value in (("language", language), ("task", request.task)) if value}
        windows = self._generate(inputs, request, told, options)
        heard = self._read(windows, replace(request, language=language), len(samples) / self.rate, options)
        if heard.text or request.language:
            heard.language = language or ("en" if self._multilingual is False else None)
        heard.warnings = request.warnings
        return heard

    def _request(self, options: JsonObject) -> Request:
        """Returns what can be done of what the caller asks; raises `InvalidInputError` for an unknown language."""
        language, task, notes = self._speech(options)
        times, words, more = self._times(options)
        return Request(language, task, times, words, notes + more)

    def _speech(self, options: JsonObject) -> tuple[str | None, str | None, list[str]]:
        """Returns the language and the task that the model is told, and what it cannot be told."""
        own, notes = self.model.generation_config, list[str]()
        language, task = options.get("language"), options.get("task")
        if self._multilingual is False or not self._languages:
            knows = "knows English alone" if self._multilingual is False else "lists no languages in its config"
            if language and not (self._multilingual is False and language_code(language) == "en"):
                notes.append(f"option 'language': this model {knows}, '{language}' has no effect")
            language = None
        elif language or getattr(own, "language", None):
            language = self._known(language or own.language)
        if self._multilingual is False or not self._tasks:
            if task == "translate":
                notes.append("option 'task': this model cannot translate, it transcribes")
            task = None
        else:
            task = task or getattr(own, "task", None) or "transcribe"
        return language, task, notes

    def _times(self, options: JsonObject) -> tuple[bool, bool, list[str]]:
        """Returns whether segments and words get times, and what of it the checkpoint cannot do."""
        wanted = options.get("return_timestamps")
        if not wanted or not self._has_times:
            return False, False, []  # chunks without times of its own are warned of where they are made
        if wanted == "word" and not getattr(self.model.generation_config, "alignment_heads", None):
            return True, False, ["option 'return_timestamps': this checkpoint cannot time words: segments are given"]
        return True, wanted == "word", []

    def _known(self, language: str) -> str:
        code = language_code(language)
        if f"<|{code}|>" not in self._languages:
            codes = [token[2:-2] for token in self._languages]
            raise InvalidInputError(
                f"option 'language': '{language}' is none of this model's languages: it has {some(codes)}",
                details={"languages": sorted(codes)},
            )
        return code

    def _features(self, samples: Samples) -> dict[str, Any]:
        long = len(samples) > self.processor.feature_extractor.n_samples
        shape = {"truncation": False, "padding": "longest"} if long else {}
        return self.encoded(samples, return_attention_mask=True, **shape)

    def _heard_language(self, features: Any) -> str | None:
        if not self._languages or self._multilingual is False:
            return None
        frames = 2 * self.model.config.max_source_positions
        window = features[:, :, :frames]
        window = torch.nn.functional.pad(window, (0, frames - window.shape[-1]))
        token = int(self.model.detect_language(window, num_segment_frames=frames)[0])
        return next((name[2:-2] for name, ids in self._languages.items() if ids == token), None)

    def _config(self, options: JsonObject) -> GenerationConfig:
        """Returns the checkpoint's own generation config with what the caller set on top."""
        config = copy.deepcopy(self.model.generation_config)
        # Of one window, and without the prompt, as this model's generate() counts it.
        config.max_length, config.max_new_tokens = min(self._room, token_budget(options) or self._room), None
        config.num_beams = options.get("num_beams", default_of(TransformersOptions, "num_beams"))
        config.num_return_sequences = 1
        for name in ("repetition_penalty", "no_repeat_ngram_size"):
            if name in options:
                setattr(config, name, options[name])
        if options.get("min_length"):
            config.min_new_tokens = min(options["min_length"], config.max_length)
        if config.num_beams > 1:
            for name in ("early_stopping", "length_penalty"):
                setattr(config, name, options.get(name, default_of(TransformersOptions, name)))
        if _samples(options):
            config.do_sample, config.temperature = True, _value(options, "temperature")
            config.top_p, config.top_k = _value(options, "top_p"), _value(options, "top_k")
        config.output_logits = bool(options.get("logprobs"))
        return config

    def _generate(
        self, inputs: dict[str, Any], request: Request, told: JsonObject, options: JsonObject
    ) -> list[Window]:
        config = self._config(options)
        if config.output_logits and config.num_beams > 1:
            raise InvalidInputError("option 'logprobs' needs num_beams 1")
        times = request.times or inputs["input_features"].shape[-1] > 2 * self.model.config.max_source_positions
        bound = token_budget(options)
        with self._attention_of_words(request.words):
            try:
                output = self.model.generate(
                    **inputs,
                    generation_config=config,
                    stopping_criteria=StoppingCriteriaList([Stopped(), *([Budget(bound)] if bound else [])]),
                    monitor_progress=_stop_between_windows,
                    temperature=_value(options, "temperature") if _samples(options) else None,
                    return_timestamps=times if self._has_times else None,
                    return_token_timestamps=request.words or None,
                    return_segments=True,
                    return_dict_in_generate=config.output_logits or None,
                    # Without times it would give the last of several calls alone.
                    force_unique_generate_call=(config.output_logits and not times) or None,
                    **told,
                )
            except ValueError as exc:
                raise InvalidInputError(f"these options do not go together: {exc}") from exc
        if stop_requested():
            raise CancelledError("transcription was stopped")
        if isinstance(output, dict) and "segments" in output:
            return windows_of(output["segments"][0])
        start = output["sequences"].shape[1] - len(output["logits"])
        return [Window(output["sequences"][0], start, output["logits"], [])]

    @contextmanager
    def _attention_of_words(self, words: bool) -> Iterator[None]:
        """Lets the library switch to the attention that it can look into, and switches back behind it."""
        config = self.model.model.config
        before = config._attn_implementation
        try:
            yield
        finally:
            if words:
                config._attn_implementation = before

    @property
    def _room(self) -> int:
        """The tokens that one window may have."""
        return int(self.model.config.max_target_positions) - _PROMPT_TOKENS

    @property
    def _end(self) -> int:
        return int(self.model.generation_config.eos_token_id)

    def _read(self, windows: list[Window], request: Request, seconds: float, options: JsonObject) -> Heard:
        bound = token_budget(options)
        kept, cut = within(windows, bound, self._end)
        generated = [window.generated(self._end) for window in kept]
        heard = Heard(self.decoded([token for window in kept for token in window.answer()]), sum(map(len, generated)))
        endless = [ids for ids in generated if self._end not in ids]
        spent = bound is not None and heard.tokens >= bound
        heard.cut = cut or any(spent or len(ids) >= self._room for ids in endless)
        for window, tokens in zip(kept, generated, strict=True):
            if window.logits is not None:
                steps = [step if step.ndim == 2 else step[None] for step in window.logits][: len(tokens)]
                heard.logprobs += logprobs(steps, torch.tensor(tokens))
        if request.words:
            heard.chunks = self._words([segment for window in kept for segment in window.segments], request.language)
        elif request.times:
            heard.chunks = [self._segment(segment, window, seconds) for window in kept for segment in window.segments]
        return heard

    def _segment(self, segment: Any, window: Window, seconds: float) -> JsonObject:
        tokens, first_time = segment["tokens"].tolist(), self.model.generation_config.no_timestamps_token_id + 1
        start = float(segment["start"])
        paired = any(a >= first_time and b >= first_time for a, b in itertools.pairwise(tokens))
        if len(window.segments) == 1 and not paired and tokens and tokens[0] >= first_time:
            # A window's only segment is told to begin with it, whatever time the model gave.
            start += (tokens[0] - first_time) * _TIME_STEP
        return {"text": self.decoded(tokens), "timestamp": [start, min(float(segment["end"]), seconds)]}

    def _words(self, segments: list[Any], language: str | None) -> list[JsonObject]:
        if not segments:
            return []
        # Its language tells how to part a text into words: by spaces, or by characters.
        known = torch.tensor([self._languages[f"<|{language}|>"]] if f"<|{language}|>" in self._languages else [])
        tokens = torch.cat([known.long(), *(segment["tokens"].cpu() for segment in segments)])[None]
        times = torch.cat([known * 0.0, *(segment["token_timestamps"].cpu() for segment in segments)])[None]
        _, told = self.tokenizer._decode_asr(
            [{"tokens": tokens.numpy(), "token_timestamps": times.numpy()}],
            return_timestamps="word",
            return_language=None,
            time_precision=_TIME_STEP,
        )
        return [
            {"text": chunk["text"].strip(), "timestamp": [float(second) for second in chunk["timestamp"]]}
            for chunk in told["chunks"]
        ]


def _stop_between_windows(progress: Any) -> None:
    if stop_requested():
        raise CancelledError("transcription was stopped")


def _samples(options: JsonObject) -> bool:
    return bool(options.get("do_sample", EXACT["do_sample"])) and _value(options, "temperature") > 0


def _value(options: JsonObject, name: str) -> Any:
    return options.get(name, default_of(TransformersOptions, name))
