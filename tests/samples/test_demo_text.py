"""Examines the committed sample model, and checks that its exam is fair."""

import json
import re
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from samples.arithmetic import (
    LARGEST,
    LIMITS,
    LIMITS_ZH,
    WELCOME,
    WELCOME_ZH,
    Conversation,
    Turn,
    exam,
    is_held_out,
    operand_pairs,
    phrasings,
    training_conversations,
)
from samples.chat_format import segments
from samples.train_demo_text import replacing

SAMPLES = Path(__file__).parents[2] / "samples"
FOLDER = SAMPLES / "demo-text"
QUESTIONS = exam(4 * len(phrasings()), seed=2024)
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 50}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, local_files_only=True).eval()


def generate(model: Any, tokenizer: Any, prompts: list[str], *, chat: bool, **options: Any) -> list[str]:
    """Generate a reply to each prompt, leaving it to the model to stop."""
    if chat:
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
        prompts = tokenizer.apply_chat_template(chats, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(prompts, add_special_tokens=not chat, padding=True, return_tensors="pt")
    torch.manual_seed(0)
    output = model.generate(**inputs, max_length=512, **options)
    answers: list[str] = tokenizer.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return answers


def share_right(replies: list[str], questions: list[Turn]) -> float:
    pairs = zip(replies, questions, strict=True)
    return sum(text == question.reply for text, question in pairs) / len(questions)


def operands(prompt: str) -> tuple[int, int] | None:
    """Read the two operands of a prompt, if it asks for them within the range."""
    numbers = [int(digits) for digits in re.findall(r"\d+", prompt)]
    if len(numbers) != 2 or max(numbers) > LARGEST:
        return None
    return numbers[0], numbers[1]


@pytest.mark.parametrize("sampling", [{}, SAMPLING], ids=["greedy", "sampled"])
@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_answers_nine_held_out_questions_in_ten(
    model: Any, tokenizer: Any, chat: bool, sampling: dict[str, Any]
) -> None:
    prompts = [question.prompt for question in QUESTIONS]
    replies = generate(model, tokenizer, prompts, chat=chat, **sampling)
    assert share_right(replies, QUESTIONS) >= 0.9


def test_answers_every_phrasing(model: Any, tokenizer: Any) -> None:
    prompts = [question.prompt for question in QUESTIONS]
    replies = generate(model, tokenizer, prompts, chat=True)
    count = len(phrasings())
    for form, phrasing in enumerate(phrasings()):
        assert share_right(replies[form::count], QUESTIONS[form::count]) >= 0.5, phrasing


def test_one_answer_for_everything_fails_the_exam() -> None:
    ((_, commonest),) = Counter(question.reply for question in QUESTIONS).most_common(1)
    assert commonest / len(QUESTIONS) <= 0.2


def test_exam_asks_only_held_out_pairs() -> None:
    pairs = [operands(question.prompt) for question in QUESTIONS]
    assert len(QUESTIONS) >= 100
    assert all(pair is not None and is_held_out(*pair) for pair in pairs)


def test_training_never_shows_a_held_out_pair() -> None:
    sample = islice(training_conversations(), 30_000)
    pairs = [operands(turn.prompt) for conversation in sample for turn in conversation.turns]
    shown = {pair for pair in pairs if pair is not None}
    assert len(shown) > 7_000
    assert not {pair for pair in shown if is_held_out(*pair)}


def test_a_fifth_of_the_pairs_is_held_out_in_both_orders() -> None:
    held_out = set(operand_pairs(held_out=True))
    assert 0.18 <= len(held_out) / (LARGEST + 1) ** 2 <= 0.22
    assert held_out == {(b, a) for a, b in held_out}


@pytest.mark.parametrize(
    ("prompt", "replies"),
    [("Hello", (WELCOME, LIMITS)), ("你好", (WELCOME_ZH, LIMITS_ZH))],
)
def test_greets_in_the_language_of_the_caller(
    model: Any, tokenizer: Any, prompt: str, replies: tuple[str, ...]
) -> None:
    assert generate(model, tokenizer, [prompt], chat=True)[0] in replies


def test_answers_the_last_of_several_turns(model: Any, tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": WELCOME},
        {"role": "user", "content": "What is 27 plus 45?"},
    ]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    output = model.generate(**inputs, max_length=512)
    assert tokenizer.decode(output[0][inputs.input_ids.shape[1] :], skip_special_tokens=True) == "72"


@pytest.mark.parametrize("system", [None, "Answer briefly."])
def test_template_writes_what_training_reads(tokenizer: Any, system: str | None) -> None:
    turns = (Turn("Hello", WELCOME), Turn("27 + 45 = ", "72"))
    conversation = Conversation(turns, chat=True, system=system)
    messages = [{"role": "system", "content": system}] if system else []
    for turn in turns:
        messages.append({"role": "user", "content": turn.prompt})
        messages.append({"role": "assistant", "content": turn.reply})
    rendered = tokenizer.apply_chat_template(messages, tokenize=False)
    assert rendered == "".join(text for text, _ in segments(conversation))


@pytest.mark.parametrize(
    "text",
    ["請問 27 減 45 是多少？", "龘靐齉 漢字", "🙂👩‍👩‍👧 ✨", "naïve café\n\t  two  spaces ", "ا ب"],
)
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(tokens) == text


def test_every_digit_is_one_token(tokenizer: Any) -> None:
    assert tokenizer.tokenize("9876543210") == list("9876543210")


def test_weights_are_one_small_safetensors_file() -> None:
    weights = {path.name for path in FOLDER.iterdir()} - {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert weights == {"model.safetensors"}
    assert (FOLDER / "model.safetensors").stat().st_size <= 3_000_000


def test_files_name_no_place_of_their_making() -> None:
    for path in FOLDER.iterdir():
        if path.suffix != ".safetensors":
            assert not re.search(r"/(tmp|home|root|work|Users)\b|_name_or_path", path.read_text("utf-8"))


def test_manifest_and_request_name_the_model() -> None:
    entries = yaml.safe_load((SAMPLES / "samples.yaml").read_text("utf-8"))
    (entry,) = [entry for entry in entries if entry["name"] == "demo-text"]
    assert (SAMPLES / entry["path"] / "config.json").is_file()
    request = json.loads((SAMPLES / "requests" / "text-generation.json").read_text("utf-8"))
    assert [request[key] for key in ("task", "engine", "model_name")] == [
        entry[key] for key in ("task", "engine", "name")
    ]
    pair = operands(request["data"]["inputs"])
    assert pair is not None
    assert is_held_out(*pair)


def write_half_and_stop(out: Path) -> None:
    with replacing(out) as folder:
        (folder / "config.json").write_text("half")
        raise KeyboardInterrupt


def test_failed_training_leaves_the_old_model(tmp_path: Path) -> None:
    out = tmp_path / "demo-text"
    out.mkdir()
    (out / "config.json").write_text("old")

    def interrupted() -> None:
        with replacing(out) as folder:
            (folder / "config.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["demo-text"]
    assert (out / "config.json").read_text() == "old"
