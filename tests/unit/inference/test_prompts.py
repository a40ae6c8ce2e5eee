"""PromptWriter: chat templates of several kinds, formats of models without one, placeholders of the caller."""

from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from src.core.errors import InvalidInputError
from src.inference.engines.transformers.prompts import FORMS, PromptWriter
from tests.architectures.tokens import fast

QWEN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT_ONLY = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] + ' ' }}{% endfor %}>"


class Processor:
    """What PromptWriter asks of a processor; the template is rendered by a real tokenizer."""

    def __init__(self, template: str | None, **tokens: str) -> None:
        self.tokenizer: PreTrainedTokenizerFast = fast()
        self.chat_template = template
        self.image_token, self.video_token = tokens.get("image"), tokens.get("video")

    def apply_chat_template(self, messages: Any, **kwargs: Any) -> str:
        return str(self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **kwargs))


def writer(model_type: str, template: str | None = None, **tokens: str) -> PromptWriter:
    return PromptWriter(model_type, Processor(template, **(tokens or {"image": "<image>"})))


def qwen() -> PromptWriter:
    return writer("qwen2_vl", QWEN, image="<|image_pad|>", video="<|video_pad|>")


@pytest.mark.parametrize(
    ("model_type", "written"),
    [
        ("llava", "USER: <image>\nWhy? ASSISTANT:"),
        ("paligemma", "<image>Why?"),
        ("idefics3", "User:<image>Why?<end_of_utterance>\nAssistant:"),
        ("gemma3", "<start_of_turn>user\n<image>Why?<end_of_turn>\n<start_of_turn>model\n"),
        ("blip-2", "Question: Why? Answer:"),
        ("kosmos-2", "<grounding>Why?"),
        ("chameleon", "Why?<image>"),
        ("fuyu", "Why?\n"),
        ("nobody-knows", "<image>\nWhy?"),
    ],
)
def test_without_a_template_a_prompt_has_its_architectures_own_format(model_type: str, written: str) -> None:
    assert writer(model_type).write("Why?", "image", 1) == written


@pytest.mark.parametrize(
    ("model_type", "prompt", "written"),
    [
        ("llava", "USER: <image>\nWhy? ASSISTANT:", "USER: <image>\nWhy? ASSISTANT:"),
        ("llava", "USER: Why? ASSISTANT:", "<image>USER: Why? ASSISTANT:"),
        ("blip-2", "Question: Why? Answer:", "Question: Why? Answer:"),
        ("kosmos-2", "<grounding>An image of", "<grounding>An image of"),
    ],
)
def test_a_prompt_that_has_the_format_already_gets_it_once(model_type: str, prompt: str, written: str) -> None:
    assert writer(model_type).write(prompt, "image", 1) == written


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("<image>\nWhy?", "USER: <image>\nWhy? ASSISTANT:"),
        ("<image>Why?", "USER: <image>\nWhy? ASSISTANT:"),
        ("Is this <image> red?", "USER: \nIs this <image> red? ASSISTANT:"),
    ],
)
def test_a_placeholder_stays_where_the_caller_put_it(prompt: str, written: str) -> None:
    assert writer("llava").write(prompt, "image", 1) == written


def test_several_placeholders_stay_where_the_caller_put_them() -> None:
    assert writer("llava").write("<image> or <image>?", "image", 2) == "USER: \n<image> or <image>? ASSISTANT:"


@pytest.mark.parametrize("prompt", ["<image><image>", "<image> a <image> b <image>"])
def test_placeholders_must_be_as_many_as_pictures(prompt: str) -> None:
    with pytest.raises(InvalidInputError, match="write one for each, or none"):
        writer("llava").write(prompt, "image", 1)


def test_a_template_places_pictures_before_the_question() -> None:
    assert qwen().write("Why?", "image", 2) == (
        "<|im_start|>user\n" + 2 * "<|vision_start|><|image_pad|><|vision_end|>" + "Why?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("placeholder", ["<|image_pad|>", "<|vision_start|><|image_pad|><|vision_end|>"])
def test_what_a_template_puts_around_a_placeholder_is_not_doubled(placeholder: str) -> None:
    written = qwen().write(f"Is {placeholder} red?", "image", 1)
    assert written.partition("user\n")[2].partition("<|im_end|>")[0] == (
        "Is <|vision_start|><|image_pad|><|vision_end|> red?"
    )


def test_a_video_has_a_placeholder_of_its_own() -> None:
    assert "<|vision_start|><|video_pad|><|vision_end|>Why?" in qwen().write("Why?", "video", 1)
    assert qwen().token("video") == "<|video_pad|>"


def test_a_template_for_texts_gets_the_placeholders_in_the_text() -> None:
    assert writer("llava", TEXT_ONLY).write("Why?", "image", 1) == "[user] <image>\nWhy? >"


def test_a_system_text_comes_first() -> None:
    assert qwen().write("Why?", "image", 1, system="Be brief.").startswith("<|im_start|>system\nBe brief.<|im_end|>")
    assert writer("llava").write("Why?", "image", 1, system="Be brief.").startswith("Be brief.\nUSER: <image>")


def test_formats_without_a_place_for_pictures_take_one() -> None:
    for form in FORMS.values():
        assert "{prompt}" in form.text
    assert not writer("blip-2").several
    assert writer("blip-2").token("image") is None
    assert writer("llava").several


def test_text_is_counted_without_placeholders() -> None:
    assert qwen().without_media("a<|image_pad|>b<|video_pad|>c") == "abc"
