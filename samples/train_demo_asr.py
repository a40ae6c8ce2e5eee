"""Trains the sample model `demo-asr` from nothing, on the CPU.

    python -m samples.train_demo_asr [--out samples/demo-asr] [--steps …] [--threads 1]

A Whisper learns to write down what the voices of `samples.inputs.speech` say: digits and commands in
English, digits in Mandarin, told apart by itself; with timestamps or without, transcribed or
translated into English. Recordings longer than its window of five seconds are cut as Whisper's own
training does, so that it also follows long ones. While it trains, a second head spells from the
encoder by CTC; it is thrown away.
"""

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit, halve, share_right  # isort: skip

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from torch import nn
from torch.nn.functional import cross_entropy, ctc_loss, log_softmax
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from samples.inputs.speech import LANGUAGES, RATE, SOUNDS, Utterance, Waveform, draw_utterance, silence, transcript
from samples.train_demo_text import replacing

PLAN = Plan(steps=1500)
BATCH = 40
WINDOW = 5
MELS = 40
WIDTH = 128
STEP = 0.02
END, BEGIN, NO_SPEECH, NO_TIMES = "<|endoftext|>", "<|startoftranscript|>", "<|nospeech|>", "<|notimestamps|>"
TASKS = ("translate", "transcribe")
# The order is Whisper's own: code that knows Whisper counts from one of these to the next.
SPECIAL = (
    BEGIN,
    *(f"<|{language}|>" for language in LANGUAGES),
    *(f"<|{task}|>" for task in TASKS),
    "<|startoflm|>",
    "<|startofprev|>",
    NO_SPEECH,
    NO_TIMES,
)
DIGITS = dict(zip(SOUNDS["zh"], SOUNDS["en"], strict=False))
IGNORED = -100
EXAMINED = 200

CARD = Card(
    name="demo-asr",
    script="train_demo_asr",
    pipeline_tag="automatic-speech-recognition",
    purpose=(
        "A Whisper that can be right or wrong: it writes down spoken digits and a few commands in English "
        f"({', '.join(list(SOUNDS['en'])[10:])}) and spoken digits in Mandarin, with timestamps where asked, and "
        "translates the latter. It exists so that a serving platform can be tried without a download."
    ),
    data=(
        "All speech comes from the formant synthesiser in `samples/inputs/speech.py`; one sentence in five and one "
        "combination of pitch and vocal tract in five are held out."
    ),
    examined=f"{EXAMINED} held-out sentences of 2 to 6 words per row, in voices that training never heard.",
    limits=f"It knows these {sum(map(len, SOUNDS.values()))} words, in clean synthetic speech, {WINDOW} s at a time.",
)


def build_tokenizer() -> WhisperTokenizer:
    """Build Whisper's tokenizer over a vocabulary in which each word is one token."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False, min_frequency=1)
    pieces.train_from_iterator([f" {word}" for word in SOUNDS["en"]] + list(SOUNDS["zh"]), trainer)
    learnt = json.loads(pieces.to_str())["model"]
    tokenizer = WhisperTokenizer(vocab=learnt["vocab"], merges=[tuple(merge) for merge in learnt["merges"]])
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIAL)})
    tokenizer.pad_token = END
    times = [f"<|{index * STEP:.2f}|>" for index in range(1501)]
    tokenizer.add_tokens([AddedToken(time, special=False, normalized=False) for time in times])
    return tokenizer


def build_processor() -> WhisperProcessor:
    """Build the processor."""
    return WhisperProcessor(WhisperFeatureExtractor(feature_size=MELS, chunk_length=WINDOW), build_tokenizer())


def build_model(tokenizer: WhisperTokenizer) -> WhisperForConditionalGeneration:
    """Build the untrained model."""
    end, begin, no_times = tokenizer.convert_tokens_to_ids([END, BEGIN, NO_TIMES])
    tokens = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": begin}
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=MELS,
        d_model=WIDTH,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=2 * WIDTH,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=2 * WIDTH,
        max_source_positions=WINDOW * 50,
        max_target_positions=64,
        dropout=0.0,
        suppress_tokens=[],
        begin_suppress_tokens=[],
        **tokens,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = GenerationConfig(
        **tokens,
        max_length=64,
        is_multilingual=True,
        lang_to_id={f"<|{name}|>": tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in LANGUAGES},
        task_to_id={task: tokenizer.convert_tokens_to_ids(f"<|{task}|>") for task in TASKS},
        no_timestamps_token_id=no_times,
        prev_sot_token_id=tokenizer.convert_tokens_to_ids("<|startofprev|>"),
        max_initial_timestamp_index=WINDOW * 50,
        return_timestamps=False,
        # Without it a caller who names no language would get no task either.
        task="transcribe",
        alignment_heads=[[1, head] for head in range(4)],
    )
    return model


def cut(utterance: Utterance, rng: random.Random) -> Utterance:
    """Cut a recording to begin a little before a random one of its words."""
    first = rng.randrange(len(utterance.words))
    start = max(0.0, utterance.spans[first][0] - rng.uniform(0, 0.1))
    spans = tuple((begin - start, end - start) for begin, end in utterance.spans[first:])
    return Utterance(utterance.audio[round(start * RATE) :], utterance.words[first:], spans, utterance.language)


def labels(utterance: Utterance, task: str, *, timed: bool) -> tuple[str, str]:
    """Write what Whisper is told, and what it shall answer about the words that end within its window."""
    inside = [span for span in utterance.spans if span[1] <= WINDOW]
    words, language = utterance.words[: len(inside)], utterance.language
    if task == "translate" and language == "zh":
        words, language = tuple(DIGITS[word] for word in words), "en"
    text = transcript(words, language)
    text = f" {text}" if text and language == "en" else text
    prompt = f"{BEGIN}<|{utterance.language}|><|{task}|>"
    if not timed:
        return prompt + NO_TIMES, text + END
    stamps = f"{_stamp(inside[0][0])}{text}{_stamp(inside[-1][1])}" if inside else ""
    following = utterance.spans[len(inside) :][:1]
    # A word that the window cuts leaves only the time of its start: the next window begins there.
    rest = _stamp(following[0][0]) if following and following[0][0] < WINDOW else ""
    return prompt, stamps + rest + END


def _stamp(seconds: float) -> str:
    return f"<|{round(seconds / STEP) * STEP:.2f}|>"


def draw(rng: random.Random) -> tuple[Waveform, str, str]:
    """Draw a recording of training, what Whisper is told of it and what it shall answer."""
    chance = rng.random()
    if chance < 0.04:
        task = rng.choice(TASKS)
        return silence(rng, rng.uniform(0.5, 6)), f"{BEGIN}<|en|><|{task}|>{NO_TIMES}", END
    utterance = draw_utterance(rng, held_out=False, most=12 if chance < 0.3 else 6)
    if chance < 0.3:
        utterance = cut(utterance, rng)
    task = "translate" if rng.random() < 0.2 else "transcribe"
    told, answer = labels(utterance, task, timed=rng.random() < 0.4)
    return utterance.audio[: WINDOW * RATE], told, answer


def batches(processor: WhisperProcessor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield features, (batch, mels, frames), token ids, (batch, length), and which of them to learn."""
    rng = random.Random(f"training {SEED}")
    tokenizer = processor.tokenizer
    while True:
        audio, told, answers = zip(*(draw(rng) for _ in range(BATCH)), strict=True)
        features = processor.feature_extractor(list(audio), sampling_rate=RATE, return_tensors="pt").input_features
        prompts = tokenizer(list(told), add_special_tokens=False).input_ids
        replies = tokenizer(list(answers), add_special_tokens=False).input_ids
        length = max(len(a) + len(b) for a, b in zip(prompts, replies, strict=True))
        tokens = torch.full((BATCH, length), tokenizer.pad_token_id)
        learnt = torch.zeros(BATCH, length, dtype=torch.bool)
        for row, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            tokens[row, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
            learnt[row, len(prompt) : len(prompt) + len(reply)] = True
            # The language is heard; the task and the wish for timestamps are the caller's.
            learnt[row, 1] = len(reply) > 1
        yield features, tokens, learnt


class Speller(nn.Module):
    """Spells from the encoder's frames; it exists while training only."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = words
        self.spell = nn.Linear(WIDTH, words)

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor, learnt: torch.Tensor) -> torch.Tensor:
        """Return the CTC loss of hidden states, (batch, frames, width), per word; translations are left out."""
        spoken = learnt & (tokens < self.words) & (tokens > 0)
        spoken[:, 1] = False
        texts = [row[mark] for row, mark in zip(tokens, spoken, strict=True)]
        lengths = torch.tensor([len(text) for text in texts])
        scores = log_softmax(self.spell(hidden), dim=-1).transpose(0, 1)
        frames = torch.full_like(lengths, scores.shape[0])
        loss = ctc_loss(scores, torch.cat(texts), frames, lengths, reduction="sum", zero_infinity=True)
        return loss / lengths.sum().clamp(min=1)


def loss_of(
    model: WhisperForConditionalGeneration,
    speller: Speller,
    translated: int,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Return the loss of the decoder per token and of the speller per word."""
    features, tokens, learnt = batch
    hidden = model.model.encoder(features).last_hidden_state
    decoded = model.model.decoder(input_ids=tokens[:, :-1], encoder_hidden_states=hidden).last_hidden_state
    targets = tokens[:, 1:][learnt[:, 1:]]
    written = cross_entropy(model.proj_out(decoded[learnt[:, 1:]]), targets)
    verbatim = (tokens[:, 2] != translated).nonzero()[:, 0]
    return written + 0.3 * speller(hidden[verbatim], tokens[verbatim], learnt[verbatim])


@torch.inference_mode()
def transcribe(
    model: WhisperForConditionalGeneration, processor: WhisperProcessor, audio: Sequence[Waveform], **options: str
) -> list[str]:
    """Write down recordings of up to five seconds each."""
    features = processor(list(audio), sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
    tokens = model.generate(**features, do_sample=False, **options)
    return [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]


def examine(model: WhisperForConditionalGeneration, processor: WhisperProcessor) -> dict[str, float]:
    """Measure the share of held-out sentences written down exactly, in either language, and from silence."""
    scores = {}
    for language in LANGUAGES:
        utterances = exam(EXAMINED, language, random.Random(f"exam {language}"))
        texts = transcribe(model, processor, [utterance.audio for utterance in utterances])
        truths = [utterance.text for utterance in utterances]
        scores[f"Held-out sentences, {language}"] = share_right(texts, truths)
    rng = random.Random("silence")
    texts = transcribe(model, processor, [silence(rng) for _ in truths])
    return scores | {"Silence in their place": share_right(texts, truths)}


def exam(count: int, language: str, rng: random.Random) -> list[Utterance]:
    """Draw held-out sentences of at least two words that end within the window."""
    found: list[Utterance] = []
    while len(found) < count:
        utterance = draw_utterance(rng, held_out=True, language=language)
        if len(utterance.words) > 1 and utterance.spans[-1][1] <= WINDOW:
            found.append(utterance)
    return found


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-asr.", PLAN, Path(__file__).parent / CARD.name)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    translate = processor.tokenizer.convert_tokens_to_ids("<|translate|>")
    speller = Speller(processor.tokenizer.convert_tokens_to_ids(END))
    print(f"{model.num_parameters():,} parameters, {len(processor.tokenizer)} tokens")
    plan = Plan(steps=chosen.steps)
    minutes = fit((model, speller), batches(processor), lambda batch: loss_of(model, speller, translate, batch), plan)
    # What is examined is what is stored: weights in half precision, computed with in full.
    model.half().float().eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        halve(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
