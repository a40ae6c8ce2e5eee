"""How `demo-text` reads and writes text: its tokenizer, its chat template, its training samples."""

from collections.abc import Iterator
from itertools import islice

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from samples.arithmetic import Conversation, training_conversations

CONTEXT = 1024
VOCABULARY = 512
PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL = [PAD, BEGIN, END, SYSTEM, USER, ASSISTANT]
CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role not in ('system', 'user', 'assistant') -%}
{{- raise_exception('Unknown role: ' + message.role) -}}
{%- endif -%}
{%- set content = message.content if message.content is string
    else message.content | map(attribute='text') | join -%}
{{- '<|' + message.role + '|>' + content | trim + eos_token -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE in which every digit is one token, and give it the chat template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=SPECIAL,
        show_progress=False,
    )
    sample = islice(training_conversations(), 20_000)
    core.train_from_iterator((f"{t.prompt}\n{t.reply}" for c in sample for t in c.turns), trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, SPECIAL.index(BEGIN))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        extra_special_tokens=[SYSTEM, USER, ASSISTANT],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        padding_side="left",
        model_max_length=CONTEXT,
    )


def segments(conversation: Conversation) -> Iterator[tuple[str, bool]]:
    """Split a sample into text to read and text to learn; joined, a chat is the template's text."""
    yield BEGIN, False
    if conversation.system:
        yield f"{SYSTEM}{conversation.system}{END}", False
    for turn in conversation.turns:
        prompt = f"{USER}{turn.prompt.strip()}{END}{ASSISTANT}" if conversation.chat else turn.prompt
        yield prompt, False
        yield turn.reply + END, True


def encode(tokenizer: PreTrainedTokenizerFast, conversation: Conversation) -> list[tuple[int, bool]]:
    """Turn a sample into token ids, each with whether it is learnt."""
    core = tokenizer.backend_tokenizer
    return [
        (token, learnt)
        for text, learnt in segments(conversation)
        for token in core.encode(text, add_special_tokens=False).ids
    ]
