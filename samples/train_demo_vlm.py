"""Trains the sample model `demo-vlm` from nothing, on the CPU.

    python -m samples.train_demo_vlm [--out samples/demo-vlm] [--steps …] [--threads 1]

A LLaVA (CLIP's vision tower, a projector, a Llama) learns to answer questions about the pictures of
`samples.inputs.scenes`, asked in LLaVA's own format, several in a row. The tower first learns alone
what its patches show (`samples.patches`), then all parts learn together.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit, share_right  # isort: skip

import torch
from PIL import Image
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

from samples.dialogue import TEMPLATE, TOKENS, build_tokenizer, collate, conversation, prompt
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
    Mark,
    Scene,
    blank_scene,
    draw_scene,
    exam_scenes,
    exchanges,
)
from samples.patches import Patches
from samples.train_demo_text import replacing

LOOKING = Plan(steps=1000)
PLAN = Plan(steps=1800)
BATCH = 40
PATCH = 8
PATCHES = (SIDE // PATCH) ** 2
WIDTH = 112
PICTURE = "<image>"
EXAMINED = 150
Marks = Sequence[Sequence[Mark]]
Sight = tuple[torch.Tensor, Marks]
Lesson = tuple[torch.Tensor, Marks, torch.Tensor, torch.Tensor]

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


def build_processor() -> LlavaProcessor:
    """Build the processor: one token per patch of the picture."""
    size = {"height": SIDE, "width": SIDE}
    words = [f" {word}" for word in (*SHAPES, *PLURALS.values(), *COLOURS, "and", "are", "is the")]
    questions = (*ASK_SHAPE, *ASK_COLOUR, *ASK_COUNT, *ASK_ALL)
    return LlavaProcessor(
        CLIPImageProcessorPil(size=size, crop_size=size),
        build_tokenizer([*words, *questions], [PICTURE]),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Build the untrained model."""
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
        **TOKENS,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(PICTURE),
        image_seq_length=PATCHES,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**TOKENS)
    return model


def ask_about(scene: Scene, rng: random.Random) -> list[Exchange]:
    """Ask about shape, colour and number in any order, and at times for all, before or after."""
    *single, described = exchanges(scene, rng).values()
    rng.shuffle(single)
    return rng.choices((single, [described, *single], [*single, described]), (2, 1, 1))[0]


def draw(rng: random.Random) -> list[Scene]:
    """Draw a batch of scenes to learn from."""
    return [draw_scene(rng, held_out=False, groups=rng.choices((1, 2), (2, 3))[0]) for _ in range(BATCH)]


def pixels(processor: LlavaProcessor, scenes: Sequence[Scene]) -> torch.Tensor:
    """Turn scenes into pixel values, (batch, 3, side, side)."""
    values: torch.Tensor = processor.image_processor(
        [scene.image for scene in scenes], return_tensors="pt"
    ).pixel_values
    return values


def sights(processor: LlavaProcessor) -> Iterator[Sight]:
    """Yield pictures, (batch, 3, side, side), and the marks of the shapes in each."""
    rng = random.Random(f"looking {SEED}")
    while True:
        scenes = draw(rng)
        yield pixels(processor, scenes), [scene.marks for scene in scenes]


def lessons(processor: LlavaProcessor) -> Iterator[Lesson]:
    """Yield pictures, marks, token ids, (batch, length), and which of them to learn."""
    rng = random.Random(f"training {SEED}")
    while True:
        scenes = draw(rng)
        conversations = [conversation(PICTURE * PATCHES, ask_about(scene, rng), rng) for scene in scenes]
        marks = [scene.marks for scene in scenes]
        yield pixels(processor, scenes), marks, *collate(processor.tokenizer, conversations)


def looking_loss(model: LlavaForConditionalGeneration, patches: Patches, sight: Sight) -> torch.Tensor:
    """Return the loss of what the tower's patches are said to show."""
    pictures, marks = sight
    return patches(model.model.vision_tower(pictures).last_hidden_state, marks)


def loss_of(model: LlavaForConditionalGeneration, patches: Patches, lesson: Lesson) -> torch.Tensor:
    """Return the loss per token of the answers, and a little of the patches'."""
    pictures, marks, tokens, learnt = lesson
    hidden = model.model.vision_tower(pictures).last_hidden_state
    features = model.model.multi_modal_projector(hidden[:, 1:])
    embedded = model.get_input_embeddings()(tokens)
    embedded = embedded.masked_scatter((tokens == model.config.image_token_id)[..., None], features)
    states = model.model.language_model(inputs_embeds=embedded).last_hidden_state[:, :-1]
    targets = learnt[:, 1:]
    answered = cross_entropy(model.lm_head(states[targets]), tokens[:, 1:][targets])
    return answered + 0.3 * patches(hidden, marks)


@torch.inference_mode()
def ask(
    model: LlavaForConditionalGeneration,
    processor: LlavaProcessor,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
) -> list[str]:
    """Ask one question about each picture."""
    inputs = processor(
        images=list(images), text=[prompt(PICTURE, text) for text in prompts], padding=True, return_tensors="pt"
    )
    output = model.generate(**inputs, do_sample=False, max_new_tokens=16)
    answers = processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in answers]


def exam(count: int, groups: int, rng: random.Random) -> list[tuple[Scene, dict[str, Exchange]]]:
    """Draw held-out scenes and what to ask about each."""
    return [(scene, exchanges(scene, rng)) for scene in exam_scenes(count, rng, groups=groups)]


def examine(model: LlavaForConditionalGeneration, processor: LlavaProcessor) -> dict[str, float]:
    """Measure the share of questions about held-out scenes answered exactly; also with blank pictures."""
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
                name = f"{subject}, {('one kind', 'two kinds')[groups - 1]}{pictures}"
                scores[name] = share_right(replies, [question.reply for question in questions])
    return scores


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-vlm.", PLAN, Path(__file__).parent / CARD.name)
    processor = build_processor()
    model, patches = build_model(processor.tokenizer), Patches(WIDTH, SIDE, PATCH)
    print(f"{model.num_parameters():,} parameters, {len(processor.tokenizer)} tokens")
    tower = (model.model.vision_tower, patches)
    minutes = fit(tower, sights(processor), lambda sight: looking_loss(model, patches, sight), LOOKING)
    plan = replace(PLAN, steps=chosen.steps)
    minutes += fit((model, patches), lessons(processor), lambda lesson: loss_of(model, patches, lesson), plan)
    model.eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
