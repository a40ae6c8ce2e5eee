"""What a Whisper checkpoint can be asked for: languages, translation, times."""

from dataclasses import dataclass
from typing import Any

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.speech_seq2seq import language_code, some
from src.inference.types import JsonObject


@dataclass(frozen=True, slots=True)
class Request:
    """What the model is asked for, as far as it can do it; `language` is a code, None until it is heard."""

    language: str | None
    task: str | None
    times: bool
    words: bool
    warnings: list[str]


class Abilities:
    """The languages, tasks and times of a checkpoint, as its generation config tells them.

    `languages`: token → id; `tasks`: name → id; `multilingual`: False of one that knows English alone.
    """

    def __init__(self, own: Any) -> None:
        self._own = own
        self.languages = dict(getattr(own, "lang_to_id", None) or {})
        self.tasks = dict(getattr(own, "task_to_id", None) or {})
        self.multilingual = getattr(own, "is_multilingual", None)
        self.has_times = getattr(own, "no_timestamps_token_id", None) is not None

    @property
    def first_time(self) -> int | None:
        """The token of the time 0.00, behind which those of later times follow."""
        return int(self._own.no_timestamps_token_id) + 1 if self.has_times else None

    @property
    def hears_again(self) -> bool:
        """Whether what a window gave may be thrown away: it was not sure enough, or held no speech."""
        names = ("logprob_threshold", "compression_ratio_threshold", "no_speech_threshold")
        return any(getattr(self._own, name, None) is not None for name in names)

    @property
    def remembers(self) -> bool:
        """Whether a window's text depends on that of the one before."""
        return bool(getattr(self._own, "condition_on_prev_tokens", None))

    def name_of(self, token: int) -> str | None:
        """Returns the code of a language's token."""
        return next((name[2:-2] for name, known in self.languages.items() if known == token), None)

    def request(self, options: JsonObject) -> Request:
        """Returns what can be done of what the caller asks; raises `InvalidInputError` for an unknown language."""
        language, task, notes = self._speech(options)
        times, words, more = self._times(options)
        return Request(language, task, times, words, notes + more)

    def _speech(self, options: JsonObject) -> tuple[str | None, str | None, list[str]]:
        """Returns the language and the task that the model is told, and what it cannot be told."""
        own, notes = self._own, list[str]()
        language, task = options.get("language"), options.get("task")
        if self.multilingual is False or not self.languages:
            knows = "knows English alone" if self.multilingual is False else "lists no languages in its config"
            if language and not (self.multilingual is False and language_code(language) == "en"):
                notes.append(f"option 'language': this model {knows}, '{language}' has no effect")
            language = None
        elif language or getattr(own, "language", None):
            language = self._known(language or own.language)
        if self.multilingual is False or not self.tasks:
            if task == "translate":
                notes.append("option 'task': this model cannot translate, it transcribes")
            task = None
        else:
            task = task or getattr(own, "task", None) or "transcribe"
        return language, task, notes

    def _times(self, options: JsonObject) -> tuple[bool, bool, list[str]]:
        """Returns whether segments and words get times, and what of it the checkpoint cannot do."""
        wanted = options.get("return_timestamps")
        if not wanted or not self.has_times:
            return False, False, []  # chunks without times of its own are warned of where they are made
        if wanted == "word" and not getattr(self._own, "alignment_heads", None):
            return True, False, ["option 'return_timestamps': this checkpoint cannot time words: segments are given"]
        return True, wanted == "word", []

    def _known(self, language: str) -> str:
        code = language_code(language)
        if f"<|{code}|>" not in self.languages:
            codes = [token[2:-2] for token in self.languages]
            raise InvalidInputError(
                f"option 'language': '{language}' is none of this model's languages: it has {some(codes)}",
                details={"languages": sorted(codes)},
            )
        return code
