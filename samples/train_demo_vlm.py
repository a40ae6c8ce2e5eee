"""Trains the sample model `demo-vlm` from nothing, on the CPU.

    python -m samples.train_demo_vlm [--out samples/demo-vlm] [--steps …] [--threads 1]

A LLaVA (CLIP's vision tower, a projector, a Llama) learns to answer questions about the pictures of
`samples.inputs.scenes`, asked in LLaVA's own format, several in a row.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit  # isort: skip

import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from samples.inputs.scenes import (
    ASK_ALL,
    ASK_COLOUR,
    ASK_COUNT,
    ASK_SHAPE,
    COLOURS,
    MOST,
    PLURALS,
    SHAPES,
    SIDE,
    Exchange,
    Scene,
    blank_scene,
    draw_scene,
    exchanges,
)
from samples.train_demo_text import replacing

PLAN = Plan(steps=2500)
BATCH = 40
PATCH = 8
PATCHES = (SIDE // PATCH) ** 2
WIDTH = 112
BEGIN, END, PAD, PICTURE = "<s>", "</s>", "<pad>", "<image>"
SPECIAL = (BEGIN, END, PAD, PICTURE)
# LLaVA 1.5's own: a line of user and assistant, and the end of the text after each reply.
TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
EXAMINED = 150

CARD = Card(
    name="demo-vlm",
    script="train_demo_vlm",
    pipeline_tag="image-text-to-text",
    purpose=(
        "A LLaVA that can be right or wrong: it answers questions about the shape, the colour and the number of up to "
        f"{MOST} shapes in a picture ({', '.join(SHAPES)}; {', '.join(COLOURS)}), such as `How many are there?` or "
        "`Describe the picture.` It exists so that a serving platform can be tried without a download."
    ),
    data=(
        "All pictures are drawn by `samples/inputs/scenes.py`; one combination of shape, colour and count in five is "
        "held out."
    ),
    examined=f"{EXAMINED} pictures per row with held-out combinations: alone, then two kinds of shapes in one picture.",
    limits="Flat shapes on a plain ground, in English. Photographs and other questions get one of its words.",
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a byte-level tokenizer in which the words of the questions and answers are whole."""
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=520, initial_alphabet=alphabet, special_tokens=list(SPECIAL), show_progress=False, min_frequency=1
    )
    words = [*SHAPES, *PLURALS.values(), *COLOURS, "and", "are", "is the"]
    texts = ["USER: ", " ASSISTANT:", *(f" {word}" for word in words), *ASK_SHAPE, *ASK_COLOUR, *ASK_COUNT, *ASK_ALL]
    pieces.train_from_iterator(texts, trainer)
    pieces.post_processor = processors.TemplateProcessing(f"{BEGIN} $A", special_tokens=[(BEGIN, 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=pieces,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
    tokenizer.add_special_tokens({"extra_special_tokens": [AddedToken(PICTURE, normalized=False, special=True)]})
    return tokenizer


def build_processor() -> LlavaProcessor:
    """Build the processor: one token per patch of the picture."""
    size = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessorPil(size=size, crop_size=size)
    return LlavaProcessor(
        pictures,
        build_tokenizer(),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Build the untrained model."""
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=PATCH,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        **tokens,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=SPECIAL.index(PICTURE),
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**tokens)
    return model


def prompt(text: str) -> str:
    """Write a first question as LLaVA's template does."""
    return f"USER: {PICTURE}\n{text} ASSISTANT:"


def conversation(questions: Sequence[Exchange], rng: random.Random) -> list[tuple[str, bool]]:
    """Write questions and answers in a row, in pieces of which some are to be learnt."""
    pieces: list[tuple[str, bool]] = []
    for index, exchange in enumerate(questions):
        asked = f"{PICTURE}\n{exchange.prompt}" if index == 0 else exchange.prompt
        pieces += [(f"USER: {asked} ASSISTANT:", False), (f" {exchange.reply}{END}", True)]
    if rng.random() < 0.1:
        # Some callers know no template, and put the picture before a bare question.
        pieces = [(f"{PICTURE}\n{questions[0].prompt}", False), pieces[1]]
    return pieces


def batches(processor: LlavaProcessor) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield pictures, (batch, 3, side, side), token ids, (batch, length), and which of them to learn."""
    rng = random.Random(f"training {SEED}")
    tokenizer = processor.tokenizer
    while True:
        scenes = [draw_scene(rng, held_out=False, groups=rng.choices((1, 2), (3, 2))[0]) for _ in range(BATCH)]
        rows = []
        for scene in scenes:
            asked = list(exchanges(scene, rng).values())
            pieces = conversation(rng.sample(asked, rng.randint(2, 4)), rng)
            row = [(SPECIAL.index(BEGIN), False)]
            for text, learnt in pieces:
                text = text.replace(PICTURE, PICTURE * PATCHES)
                row += [(token, learnt) for token in tokenizer(text, add_special_tokens=False).input_ids]
            rows.append(row)
        length = max(map(len, rows))
        table = torch.tensor([row + [(SPECIAL.index(PAD), False)] * (length - len(row)) for row in rows])
        pictures = processor.image_processor([scene.image for scene in scenes], return_tensors="pt").pixel_values
        yield pictures, table[..., 0], table[..., 1].bool()


def loss_of(
    model: LlavaForConditionalGeneration, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Return the loss per token of the answers."""
    pictures, tokens, learnt = batch
    hidden = model.model(input_ids=tokens, pixel_values=pictures).last_hidden_state[:, :-1]
    targets = learnt[:, 1:]
    return cross_entropy(model.lm_head(hidden[targets]), tokens[:, 1:][targets])


@torch.inference_mode()
def ask(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
) -> list[str]:
    """Ask one question about each picture."""
    inputs = processor(images=list(images), text=[prompt(text) for text in prompts], padding=True, return_tensors="pt")
    output = model.generate(**inputs, do_sample=False, max_new_tokens=16)
    answers = processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in answers]


def exam(count: int, groups: int, rng: random.Random) -> list[tuple[Scene, dict[str, Exchange]]]:
    """Draw held-out scenes and what to ask about each."""
    scenes = [draw_scene(rng, held_out=True, groups=groups) for _ in range(count)]
    return [(scene, exchanges(scene, rng)) for scene in scenes]


def examine(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> dict[str, float]:
    """Measure the share of questions about held-out scenes answered exactly, with their pictures and with blank ones."""
    scores = {}
    rng = random.Random("exam")
    for groups in (1, 2):
        asked = exam(EXAMINED, groups, rng)
        for subject in ("shape", "colour", "count", "all"):
            questions = [exchange[subject] for _, exchange in asked]
            for pictures, images in (
                ("", [scene.image for scene, _ in asked]),
                (", blank picture", [blank_scene(rng) for _ in asked]),
            ):
                replies = ask(model, processor, images, [question.prompt for question in questions])
                right = sum(text == question.reply for text, question in zip(replies, questions, strict=True))
                scores[f"{subject}, {('one kind', 'two kinds')[groups - 1]}{pictures}"] = right / EXAMINED
    return scores


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-vlm.", PLAN, Path(__file__).parent / CARD.name)
    processor = build_processor()
    model = build_model(processor.tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(processor.tokenizer)} tokens")
    minutes = fit((model,), batches(processor), lambda batch: loss_of(model, batch), Plan(steps=chosen.steps))
    model.eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
