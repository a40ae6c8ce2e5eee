"""How each architecture wants a question about pictures written: by its chat template, else in its own format."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jinja2 import TemplateError

from src.core.errors import InvalidInputError

Kind = Literal["image", "video"]

_MARK = "\x01"


@dataclass(frozen=True, slots=True)
class Form:
    """The prompt format of an architecture whose processor has no chat template.

    `text`: `{media}` stands for the pictures' placeholders, `{prompt}` for the question. `several`: whether it
    takes more than one picture. `unless`: a prompt that holds this has the format already.
    """

    text: str
    several: bool = True
    unless: str | None = None


_VICUNA = Form("USER: {media}\n{prompt} ASSISTANT:", unless="ASSISTANT:")
_CHATML = Form("<|im_start|>user\n{media}\n{prompt}<|im_end|>\n<|im_start|>assistant\n", unless="<|im_start|>")
_QWEN = Form(
    "<|im_start|>user\n{media}{prompt}<|im_end|>\n<|im_start|>assistant\n",
    unless="<|im_start|>",
)
_IDEFICS = Form("User:{media}{prompt}<end_of_utterance>\nAssistant:", unless="Assistant:")
_GEMMA = Form(
    "<start_of_turn>user\n{media}{prompt}<end_of_turn>\n<start_of_turn>model\n",
    unless="<start_of_turn>",
)
_PLAIN = Form("{media}\n{prompt}")
_BARE = Form("{prompt}", several=False)
_GOT = Form(
    "<|im_start|>system\nYou should follow the instructions carefully and explain your answers in detail.<|im_end|>"
    "<|im_start|>user\n<img>{media}</img>\n{prompt}<|im_end|><|im_start|>assistant\n",
    several=False,
    unless="<|im_start|>",
)

FORMS: Mapping[str, Form] = {
    "llava": _VICUNA,
    "llava_next": _VICUNA,
    "llava_next_video": _VICUNA,
    "vipllava": Form(
        "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the human's questions.###Human: {media}\n{prompt}###Assistant:",
        unless="###Assistant:",
    ),
    "video_llava": _VICUNA,
    "llava_onevision": _CHATML,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "internvl": _CHATML,
    "idefics": Form("{prompt}"),
    "idefics2": _IDEFICS,
    "idefics3": _IDEFICS,
    "smolvlm": Form("<|im_start|>User:{media}{prompt}<end_of_utterance>\nAssistant:", unless="Assistant:"),
    "gemma3": _GEMMA,
    "gemma3n": _GEMMA,
    "shieldgemma2": _GEMMA,
    "paligemma": Form("{media}{prompt}"),
    "mllama": Form("{media}{prompt}"),
    "chameleon": Form("{prompt}{media}"),
    "blip-2": Form("Question: {prompt} Answer:", several=False, unless="Answer:"),
    "instructblip": _BARE,
    "blip": _BARE,
    "git": _BARE,
    "pix2struct": _BARE,
    "florence2": _BARE,
    "fuyu": Form("{prompt}\n", several=False),
    "kosmos-2": Form("<grounding>{prompt}", several=False, unless="<grounding>"),
    "kosmos-2.5": Form(
        "<md>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. USER: {prompt} ASSISTANT:",
        several=False,
        unless="<",
    ),
    "got_ocr2": _GOT,
    "pp_chart2table": _GOT,
    "pp_formulanet": _BARE,
    "udop": _BARE,
    "vision-encoder-decoder": _BARE,
}
"""Model type → the format that its authors give. Sources: the model cards and the library's documentation of each."""

AROUND: Mapping[str, tuple[str, str]] = {
    "qwen2_vl": ("<|vision_start|>", "<|vision_end|>"),
    "qwen2_5_vl": ("<|vision_start|>", "<|vision_end|>"),
    "qwen3_vl": ("<|vision_start|>", "<|vision_end|>"),
    "qwen3_vl_moe": ("<|vision_start|>", "<|vision_end|>"),
}
"""Model type → what stands around a placeholder; a chat template says so by itself."""


class PromptWriter:
    """Writes the prompts of one model.

    `several`: whether it takes more than one picture.
    """

    def __init__(self, model_type: str, processor: Any) -> None:
        self._templates = [
            owner
            for owner in (processor, getattr(processor, "tokenizer", None))
            if getattr(owner, "chat_template", None)
        ]
        self._tokens = {kind: _token(processor, kind) for kind in ("image", "video")}
        self._form = FORMS.get(model_type, _PLAIN if self._tokens["image"] else _BARE)
        self._around = AROUND.get(model_type, ("", ""))
        self.several = bool(self._templates) or self._form.several

    def token(self, kind: Kind) -> str | None:
        """Returns the placeholder that the processor replaces; None where it places pictures by itself."""
        placed = self._templates or "{media}" in self._form.text
        return self._tokens[kind] if placed else None

    def write(self, prompt: str, kind: Kind, count: int, system: str | None = None) -> str:
        """Returns the text for the processor, with a placeholder for each of `count` pictures or videos.

        Raises `InvalidInputError` where the prompt has placeholders of its own, but not as many.
        """
        parts = self._parts(prompt, kind, count)
        for owner in self._templates:
            for content in (_content(parts, kind), self._joined(parts, kind, "\n")):
                text = _rendered(owner, content, system)
                if text is not None and self._complete(text, kind, count):
                    return text
        text = self._formatted(parts, kind)
        return f"{system}\n{text}" if system else text

    def without_media(self, text: str) -> str:
        """Returns a written text without its placeholders."""
        for token in filter(None, self._tokens.values()):
            text = text.replace(token, "")
        return text

    def _parts(self, prompt: str, kind: Kind, count: int) -> list[str | None]:
        """Returns the prompt in pieces, None in each place of a picture or video."""
        token = self.token(kind)
        found = prompt.count(token) if token else 0
        if token is None or not found:
            return [*[None] * count, prompt]
        if found != count:
            raise InvalidInputError(
                f"the prompt has {found} placeholders {token} and the request {count} of field '{kind}': "
                "write one for each, or none",
                details={"placeholders": found, "given": count},
            )
        before, after = self._wrap(kind, token)
        whole = before + token + after
        pieces = prompt.split(whole if prompt.count(whole) == found else token)
        parts = [part for piece in pieces for part in (piece, None)][:-1]
        return [part for part in parts if part != ""]

    def _wrap(self, kind: Kind, token: str) -> tuple[str, str]:
        """Returns what the model's format puts around a placeholder."""
        if not self._templates:
            return self._around
        text = _rendered(self._templates[0], _content([_MARK, None, _MARK], kind), None) or ""
        before, _, after = text.partition(_MARK)[2].partition(_MARK)[0].partition(token)
        return before, after

    def _complete(self, text: str, kind: Kind, count: int) -> bool:
        token = self._tokens[kind]
        return token is None or text.count(token) == count

    def _formatted(self, parts: Sequence[str | None], kind: Kind) -> str:
        form, prompt = self._form.text, "".join(filter(None, parts))
        if self._form.unless is not None and self._form.unless in prompt:
            form = "{media}{prompt}" if "{media}" in form else "{prompt}"
        ahead = next((place for place, part in enumerate(parts) if part is not None), len(parts))
        if None in parts[ahead:]:
            # The caller has said where the pictures belong.
            return form.replace("{media}", "").replace("{prompt}", self._joined(parts, kind, ""))
        on_a_line = "{media}\n" in form
        media = self._joined(parts[:ahead], kind, "\n" if on_a_line else "")
        return form.replace("{media}", media).replace("{prompt}", prompt.removeprefix("\n") if on_a_line else prompt)

    def _joined(self, parts: Sequence[str | None], kind: Kind, between: str) -> str:
        token = self.token(kind) or ""
        placed = "".join((self._around[0], token, self._around[1])) if token else ""
        return between.join(placed if part is None else part for part in parts)


def _rendered(owner: Any, content: Any, system: str | None) -> str | None:
    """Returns what a chat template makes of a question; None where it was made for another kind of content."""
    messages = [{"role": "user", "content": content}]
    if system:
        plain = isinstance(content, str)
        messages.insert(0, {"role": "system", "content": system if plain else [{"type": "text", "text": system}]})
    try:
        return str(owner.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
    except (TemplateError, TypeError):
        return None


def _content(parts: Sequence[str | None], kind: Kind) -> list[dict[str, str]]:
    return [{"type": kind} if part is None else {"type": "text", "text": part} for part in parts]


def _token(processor: Any, kind: str) -> str | None:
    token = getattr(processor, f"{kind}_token", None)
    return None if token is None else str(getattr(token, "content", token))
