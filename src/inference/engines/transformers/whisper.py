"""Whisper: many languages, translation, times of segments and words, recordings of any length."""

import copy
import itertools
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteriaList

from src.core.errors import CancelledError, InvalidInputError
from src.inference.engines.base import stop_requested
from src.inference.engines.transformers.answer_pieces import Said
from src.inference.engines.transformers.collation import collated
from src.inference.engines.transformers.generation import EXACT, Stopped, logprobs, seed
from src.inference.engines.transformers.speech import Heard, SpeechRunner, token_budget
from src.inference.engines.transformers.waveform import Samples
from src.inference.engines.transformers.whisper_features import long_features
from src.inference.engines.transformers.whisper_following import Following, WindowText
from src.inference.engines.transformers.whisper_requests import Abilities, Request
from src.inference.engines.transformers.whisper_windows import Window, windows_of
from src.inference.options import TransformersOptions, default_of
from src.inference.types import JsonObject

# What stands before an answer: its start, the language, the task, and whether there are times.
_PROMPT_TOKENS = 4
_TIME_STEP = 0.02
# Windows that go through the model together: more would need memory and gain no time.
_TOGETHER = 16


class WhisperRunner(SpeechRunner):
    """A Whisper, English or multilingual; the library's own long-form generation follows long recordings."""

    unused: tuple[str, ...] = ("eos_token_id", "pad_token_id")

    def __init__(self, name: str, model: Any, processor: Any) -> None:
        super().__init__(name, model, processor)
        self._able = Abilities(model.generation_config)
        # Without time tokens it cannot follow a long recording by itself.
        self.longest = None if self._able.has_times else float(processor.feature_extractor.chunk_length)

    @property
    def at_once(self) -> float | None:
        """A window."""
        return float(self.processor.feature_extractor.chunk_length)

    def batch_key(self, inputs: Any, options: JsonObject) -> Hashable | None:
        """Recordings of one window go together, unless windows within it follow on one another.

        Nor with times of words: the library draws them out over what pads an answer that ends before another.
        """
        times, bounded = options.get("return_timestamps"), token_budget(options) is not None
        if times == "word" or (times and (bounded or self._able.remembers)):
            return None
        return super().batch_key(inputs, options)

    def hear(self, samples: Samples, options: JsonObject, said: Said | None = None) -> Heard:
        """Generates the text of a recording; it finds the language out first where nobody told it."""
        return self._hear([samples], options, said)[0]

    def hear_together(self, sounds: Sequence[Samples], options: JsonObject) -> list[Heard | Exception]:
        """Generates the texts of several recordings of one window each."""
        heard = list[Heard | Exception]()
        for begin in range(0, len(sounds), _TOGETHER):
            some = sounds[begin : begin + _TOGETHER]
            try:
                heard += self._hear(some, options)
            except InvalidInputError as exc:  # what the options ask for cannot be, for one as for all
                heard += [exc] * len(some)
        return heard

    def _hear(self, sounds: Sequence[Samples], options: JsonObject, said: Said | None = None) -> list[Heard]:
        seed(options)
        request = self._able.request(options)
        inputs = collated([self._features(samples) for samples in sounds])
        languages = [request.language] * len(sounds)
        if request.language is None:
            languages = self._heard_languages(inputs["input_features"])
        following = Following(token_budget(options), said and WindowText(self.tokenizer, said, self._able.first_time))
        windows = self._generate(inputs, request, self._told(request, languages), options, following)
        heard = list[Heard]()
        for own, language, samples in zip(windows, languages, sounds, strict=True):
            one = self._read(own, replace(request, language=language), len(samples) / self.rate, options)
            if one.text or request.language:
                one.language = language or ("en" if self._able.multilingual is False else None)
            one.cut, one.warnings = one.cut or following.cut, list(request.warnings)
            heard.append(one)
        return heard

    def _told(self, request: Request, languages: Sequence[str | None]) -> JsonObject:
        """Returns what `generate` is told of languages and task; one that knows English alone takes neither."""
        if self._able.multilingual is False:
            return {}
        told: JsonObject = {"task": request.task} if request.task else {}
        return {**told, "language": list(languages)} if all(languages) else told

    def _features(self, samples: Samples) -> dict[str, Any]:
        extractor = self.processor.feature_extractor
        if len(samples) > extractor.n_samples:
            return self.to_device(long_features(extractor, samples))
        return self.encoded(samples, return_attention_mask=True)

    def _heard_languages(self, features: Any) -> list[str | None]:
        if not self._able.languages or self._able.multilingual is False:
            return [None] * len(features)
        frames = 2 * self.model.config.max_source_positions
        window = features[:, :, :frames]
        window = torch.nn.functional.pad(window, (0, frames - window.shape[-1]))
        tokens = self.model.detect_language(window, num_segment_frames=frames)
        return [self._able.name_of(token) for token in tokens.tolist()]

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
        self, inputs: dict[str, Any], request: Request, told: JsonObject, options: JsonObject, following: Following
    ) -> list[list[Window]]:
        """Returns the windows of each recording."""
        config = self._config(options)
        if config.output_logits and config.num_beams > 1:
            raise InvalidInputError("option 'logprobs' needs num_beams 1")
        times = request.times or inputs["input_features"].shape[-1] > 2 * self.model.config.max_source_positions
        # Beams are chosen among at the end, and what may be heard again is not told before.
        followed = following.text is not None and config.num_beams == 1 and not self._able.hears_again
        with self._attention_of_words(request.words), following.along(self.model):
            try:
                output = self.model.generate(
                    **inputs,
                    generation_config=config,
                    stopping_criteria=StoppingCriteriaList([Stopped(), *following.criteria]),
                    monitor_progress=following.progress,
                    streamer=following.text if followed else None,
                    temperature=_value(options, "temperature") if _samples(options) else None,
                    return_timestamps=times if self._able.has_times else None,
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
            return [windows_of(segments) for segments in output["segments"]]
        start = output["sequences"].shape[1] - len(output["logits"])
        return [
            [Window(sequence, start, [step[row] for step in output["logits"]], [])]
            for row, sequence in enumerate(output["sequences"])
        ]

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
        generated = [window.generated(self._end) for window in windows]
        answer = [token for window in windows for token in window.answer()]
        heard = Heard(self.decoded(answer), sum(map(len, generated)))
        endless = [ids for ids in generated if self._end not in ids]
        spent = bound is not None and heard.tokens >= bound
        heard.cut = any(spent or len(ids) >= self._room for ids in endless)
        for window, tokens in zip(windows, generated, strict=True):
            if window.logits is not None:
                steps = [step if step.ndim == 2 else step[None] for step in window.logits][: len(tokens)]
                heard.logprobs += logprobs(steps, torch.tensor(tokens))
        if request.words:
            heard.chunks = self._words([segment for window in windows for segment in window.segments], request.language)
        elif request.times:
            heard.chunks = [
                self._segment(segment, window, seconds) for window in windows for segment in window.segments
            ]
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
        known = torch.tensor(
            [self._able.languages[f"<|{language}|>"]] if f"<|{language}|>" in self._able.languages else []
        )
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


def _samples(options: JsonObject) -> bool:
    return bool(options.get("do_sample", EXACT["do_sample"])) and _value(options, "temperature") > 0


def _value(options: JsonObject, name: str) -> Any:
    return options.get(name, default_of(TransformersOptions, name))
