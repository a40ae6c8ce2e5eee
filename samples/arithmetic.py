"""The questions that `demo-text` learns from and is examined on.

Problems are `a + b` and `a - b` with both operands in 0..99. One unordered pair of operands in
five is held out: no training conversation contains it, in either order, under either operation.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase
from typing import Literal

Operation = Literal["+", "-"]
LARGEST = 99

PLAIN: dict[Operation, tuple[str, ...]] = {
    "+": ("{a} + {b} = ",),
    "-": ("{a} - {b} = ",),
}
ENGLISH: dict[Operation, tuple[str, ...]] = {
    "+": (
        "What is {a} plus {b}?",
        "What is {a} + {b}?",
        "How much is {a} plus {b}?",
        "How much is {a} + {b}?",
        "{a} + {b} = ?",
        "{a}+{b}=?",
        "Calculate {a} + {b}.",
        "Please compute {a} plus {b}.",
        "Add {a} and {b}.",
        "What is the sum of {a} and {b}?",
    ),
    "-": (
        "What is {a} minus {b}?",
        "What is {a} - {b}?",
        "How much is {a} minus {b}?",
        "How much is {a} - {b}?",
        "{a} - {b} = ?",
        "{a}-{b}=?",
        "Calculate {a} - {b}.",
        "Please compute {a} minus {b}.",
        "Subtract {b} from {a}.",
        "Take {b} away from {a}.",
    ),
}
CHINESE: dict[Operation, tuple[str, ...]] = {
    "+": (
        "{a} 加 {b} 等於多少？",
        "{a} 加 {b} 是多少？",
        "{a}加{b}等於多少？",
        "請問 {a} 加 {b} 是多少？",
        "{a} 加上 {b} 等於多少？",
        "請計算 {a} + {b}。",
        "{a} + {b} 等於多少？",
        "請幫我算 {a} 加 {b}。",
    ),
    "-": (
        "{a} 減 {b} 等於多少？",
        "{a} 減 {b} 是多少？",
        "{a}減{b}等於多少？",
        "請問 {a} 減 {b} 是多少？",
        "{a} 減去 {b} 等於多少？",
        "請計算 {a} - {b}。",
        "{a} - {b} 等於多少？",
        "請幫我算 {a} 減 {b}。",
    ),
}

WELCOME = "Hello! I am a small demo model that adds and subtracts numbers."
WELCOME_ZH = "你好！我是一個小小的示範模型，會做加法和減法。"
LIMITS = "I am a small demo model that adds and subtracts numbers from 0 to 99."
LIMITS_ZH = "我是一個小小的示範模型，只會算 0 到 99 的加減法。"

SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Hello", "Hello!", "Hi", "Hi!", "Hey", "Hello there", "Good morning", "Hi there!"), WELCOME),
    (("你好", "你好！", "您好", "您好！", "哈囉", "嗨", "早安", "大家好"), WELCOME_ZH),
    (("Who are you?", "What are you?", "What can you do?", "Help", "Tell me about you."), LIMITS),
    (("你是誰？", "你會什麼？", "你能做什麼？", "請自我介紹。", "介紹一下你自己"), LIMITS_ZH),
    (("Thanks", "Thank you", "Thank you!", "Thanks a lot."), "You are welcome."),
    (("謝謝", "謝謝你", "謝謝！", "多謝"), "不客氣。"),
)
BEYOND: tuple[tuple[str, str], ...] = (
    ("What is {a} times {b}?", LIMITS),
    ("{a} * {b} = ?", LIMITS),
    ("Divide {a} by {b}.", LIMITS),
    ("{a} 乘 {b} 等於多少？", LIMITS_ZH),
    ("{a} 除以 {b} 是多少？", LIMITS_ZH),
)
SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer briefly.", "你是一個樂於助人的助理。")


@dataclass(frozen=True)
class Problem:
    """One addition or subtraction."""

    a: int
    b: int
    operation: Operation

    @property
    def answer(self) -> str:
        """The result in decimal digits, with a leading `-` where it is negative."""
        return str(self.a + self.b if self.operation == "+" else self.a - self.b)


@dataclass(frozen=True)
class Turn:
    """What a user writes and what the model replies."""

    prompt: str
    reply: str


@dataclass(frozen=True)
class Conversation:
    """One training sample: turns rendered by the chat template, or one bare prompt."""

    turns: tuple[Turn, ...]
    chat: bool
    system: str | None = None


def is_held_out(a: int, b: int) -> bool:
    """Tell whether the pair of operands, in either order, is kept out of training."""
    digest = hashlib.sha256(f"{min(a, b)} {max(a, b)}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 5 == 0


@cache
def operand_pairs(held_out: bool) -> tuple[tuple[int, int], ...]:
    """List the ordered pairs of one side of the split."""
    numbers = range(LARGEST + 1)
    return tuple((a, b) for a in numbers for b in numbers if is_held_out(a, b) == held_out)


def phrasings() -> list[tuple[Operation, str]]:
    """List every way to ask: the operation, and a template over `a` and `b`."""
    operations: tuple[Operation, ...] = ("+", "-")
    families = (PLAIN, ENGLISH, CHINESE)
    return [(op, text) for op in operations for family in families for text in family[op]]


def exam(count: int, seed: int = 0) -> list[Turn]:
    """Draw held-out questions that go round all phrasings of both operations."""
    rng = random.Random(seed)
    forms = phrasings()
    questions = []
    for index in range(count):
        operation, template = forms[index % len(forms)]
        a, b = rng.choice(operand_pairs(held_out=True))
        questions.append(_ask(Problem(a, b, operation), template))
    return questions


def training_conversations(seed: int = 0) -> Iterator[Conversation]:
    """Yield training samples without end; the same seed gives the same samples."""
    rng = random.Random(seed)
    while True:
        if rng.random() < 0.3:
            yield Conversation((_turn(rng, other=0.03),), chat=False)
        else:
            length = rng.choices((1, 2, 3), (0.8, 0.15, 0.05))[0]
            turns = tuple(_turn(rng, other=0.08) for _ in range(length))
            system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.1 else None
            yield Conversation(turns, chat=True, system=system)


def _ask(problem: Problem, template: str) -> Turn:
    return Turn(template.format(a=problem.a, b=problem.b), problem.answer)


def _turn(rng: random.Random, *, other: float) -> Turn:
    if rng.random() >= other:
        return _question(rng)
    return rng.choices((_small_talk, _beyond, _babble), (0.4, 0.4, 0.2))[0](rng)


def _question(rng: random.Random) -> Turn:
    a, b = rng.choice(operand_pairs(held_out=False))
    operation: Operation = rng.choice(("+", "-"))
    family = rng.choices((PLAIN, ENGLISH, CHINESE), (0.3, 0.4, 0.3))[0]
    turn = _ask(Problem(a, b, operation), rng.choice(family[operation]))
    return Turn(_loosen(turn.prompt, rng), turn.reply)


def _loosen(text: str, rng: random.Random) -> str:
    """Vary case, final punctuation and spaces, as people do."""
    if rng.random() < 0.1:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.rstrip(" =?.？。")
    if rng.random() < 0.1:
        text = text.replace("？", "?").strip()
    return text


def _small_talk(rng: random.Random) -> Turn:
    prompts, reply = rng.choice(SMALL_TALK)
    return Turn(_loosen(rng.choice(prompts), rng), reply)


def _beyond(rng: random.Random) -> Turn:
    """Ask for what the model refuses: another operation, or an operand past the range."""
    a, b = rng.choice(operand_pairs(held_out=False))
    if rng.random() < 0.5:
        template, reply = rng.choice(BEYOND)
        return Turn(template.format(a=a, b=b), reply)
    family, reply = rng.choice(((PLAIN, LIMITS), (ENGLISH, LIMITS), (CHINESE, LIMITS_ZH)))
    template = rng.choice(family["+"] + family["-"])
    operands = [rng.randint(LARGEST + 1, rng.choice((199, 999, 9999))), b]
    rng.shuffle(operands)
    return Turn(template.format(a=operands[0], b=operands[1]), reply)


def _babble(rng: random.Random) -> Turn:
    """Draw text about nothing in particular, so that the model also answers what it cannot read."""
    if rng.random() < 0.5:
        lengths = [rng.randint(1, 8) for _ in range(rng.randint(1, 8))]
        words = ["".join(rng.choices(ascii_lowercase, k=length)) for length in lengths]
        return Turn(" ".join(words), LIMITS)
    signs = [chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(rng.randint(1, 10))]
    return Turn("".join(signs), LIMITS_ZH)
