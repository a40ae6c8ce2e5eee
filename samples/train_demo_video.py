"""Trains the sample model `demo-video` from nothing, on the CPU.

    python -m samples.train_demo_video [--out samples/demo-video] [--steps …] [--threads 1]

A LLaVA-NeXT-Video (CLIP's vision tower on each frame, a projector, a Llama over all of them) learns to
say what happens in the clips of `samples.inputs.motions`. As with the large ones, the tower has learnt to
see before the rest learns to talk about it: here, what each frame shows (`samples.patches`).
Its processor needs torchvision.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.training import SEED, Card, Plan, arguments, fit, share_right  # isort: skip

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from samples.dialogue import TEMPLATE, TOKENS, build_tokenizer, collate, conversation, prompt
from samples.inputs.motions import (
    ASK_ALL,
    ASK_COLOUR,
    ASK_MOTION,
    ASK_SHAPE,
    MOTIONS,
    Clip,
    Frame,
    Pose,
    draw_clip,
    draw_glimpse,
    exchanges,
    still_clip,
)
from samples.inputs.scenes import COLOURS, SHAPES, Exchange, Mark
from samples.patches import Patches
from samples.train_demo_text import replacing

LOOKING = Plan(steps=2000)
PLAN = Plan(steps=1800)
BATCH, GLIMPSES = 24, 64
SIDE, PATCH = 48, 8
FRAMES = 8
POOLED = (SIDE // PATCH // 2) ** 2
WIDTH = 112
VIDEO, PICTURE = "<video>", "<image>"
EXAMINED = 160
Marks = Sequence[Sequence[Mark]]
Sight = tuple[torch.Tensor, Marks]
Lesson = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

CARD = Card(
    name="demo-video",
    script="train_demo_video",
    pipeline_tag="video-text-to-text",
    purpose=(
        f"A LLaVA-NeXT-Video that can be right or wrong: it says what one shape does in a short video "
        f"({', '.join(MOTIONS.values())}), which shape it is and of which colour, such as `What happens?` or "
        "`Describe the video.` It exists so that a serving platform can be tried without a download."
    ),
    data=(
        "All videos are drawn by `samples/inputs/motions.py`; one combination of motion, shape and colour in five is "
        "held out."
    ),
    examined=f"{EXAMINED} clips per row with held-out combinations, {FRAMES} frames of each.",
    limits=(
        "Six to ten frames, evenly spaced, of one flat shape on a plain ground, in English. Other videos and other "
        "questions get one of its answers."
    ),
)


def build_processor() -> LlavaNextVideoProcessor:
    """Build the processor: one token per four patches of each frame."""
    size = {"height": SIDE, "width": SIDE}
    words = [f" {word}" for word in (*SHAPES, *COLOURS, *MOTIONS.values(), "a", "an")]
    questions = (*ASK_MOTION, *ASK_SHAPE, *ASK_COLOUR, *ASK_ALL)
    return LlavaNextVideoProcessor(
        LlavaNextVideoVideoProcessor(size=size, crop_size=size),
        LlavaNextImageProcessorPil(size=size, crop_size=size, image_grid_pinpoints=[[SIDE, SIDE]]),
        build_tokenizer([*words, *questions], [VIDEO, PICTURE]),
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaNextVideoForConditionalGeneration:
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
    config = LlavaNextVideoConfig(
        vision_config=vision,
        text_config=text,
        video_token_index=tokenizer.convert_tokens_to_ids(VIDEO),
        image_token_index=tokenizer.convert_tokens_to_ids(PICTURE),
        image_grid_pinpoints=[[SIDE, SIDE]],
        image_seq_length=(SIDE // PATCH) ** 2,
        video_seq_length=FRAMES * POOLED,
        vision_feature_layer=-1,
        tie_word_embeddings=True,
    )
    model = LlavaNextVideoForConditionalGeneration(config)
    model.generation_config = GenerationConfig(**TOKENS)
    return model


def encode(processor: LlavaNextVideoProcessor, clips: Sequence[Sequence[Frame]]) -> torch.Tensor:
    """Turn clips of as many frames each into pixel values, (batch, frames, 3, side, side)."""
    videos = [np.stack(frames) for frames in clips]
    pixels: torch.Tensor = processor.video_processor(videos, return_tensors="pt").pixel_values_videos
    return pixels


def marks_of(clips: Sequence[Clip]) -> Marks:
    """List what is in each frame of some clips, in the tower's pixels."""
    return [_marks(clip, pose) for clip in clips for pose in clip.poses]


def _marks(clip: Clip, pose: Pose) -> list[Mark]:
    at = (pose.at[0] * SIDE, pose.at[1] * SIDE)
    return [Mark(clip.shape, clip.colour, at, pose.radius * SIDE)] if pose.shown else []


def sights(processor: LlavaNextVideoProcessor) -> Iterator[Sight]:
    """Yield frames, (batch, 3, side, side), and the marks of the shapes in each."""
    rng = random.Random(f"looking {SEED}")
    while True:
        glimpses = [draw_glimpse(rng, held_out=False) for _ in range(GLIMPSES)]
        yield encode(processor, [glimpse.frames for glimpse in glimpses]).flatten(0, 1), marks_of(glimpses)


def ask_about(clip: Clip, rng: random.Random) -> list[Exchange]:
    """Ask about motion, shape and colour in any order, and at times for all, before or after."""
    *single, described = exchanges(clip, rng).values()
    rng.shuffle(single)
    return rng.choices((single, [described, *single], [*single, described]), (2, 1, 1))[0]


def lessons(processor: LlavaNextVideoProcessor) -> Iterator[Lesson]:
    """Yield videos, (batch, frames, 3, side, side), token ids, (batch, length), which of them to learn, and the poses.

    Poses are (batch, frames, 3): across, down and radius, in shares of the side.
    """
    rng = random.Random(f"training {SEED}")
    while True:
        frames = rng.choice((FRAMES, FRAMES, rng.randint(6, 10)))
        clips = [draw_clip(rng, held_out=False, sampled=frames) for _ in range(BATCH)]
        conversations = [conversation(VIDEO * frames * POOLED, ask_about(clip, rng), rng) for clip in clips]
        poses = torch.tensor([[[*pose.at, pose.radius] for pose in clip.poses] for clip in clips])
        yield encode(processor, [clip.frames for clip in clips]), *collate(processor.tokenizer, conversations), poses


def looking_loss(model: LlavaNextVideoForConditionalGeneration, patches: Patches, sight: Sight) -> torch.Tensor:
    """Return the loss of what the tower's patches are said to show."""
    frames, marks = sight
    return patches(model.model.vision_tower(frames).last_hidden_state, marks)


class Travel(nn.Module):
    """Says at each token of a video how far the shape has come since the first frame; it exists while training only.

    Which way a shape moves is the difference of two frames: told at every token, the Llama soon looks back for it.
    """

    def __init__(self, video_token: int) -> None:
        super().__init__()
        self.video_token = video_token
        self.say = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3))

    def forward(self, hidden: torch.Tensor, tokens: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
        """Return the loss of hidden states, (batch, length, width)."""
        seen = hidden[tokens == self.video_token].view(*poses.shape[:2], POOLED, WIDTH)
        travelled = (poses - poses[:, :1])[:, :, None]
        return mse_loss(self.say(seen), travelled.expand(-1, -1, POOLED, -1))


def loss_of(model: LlavaNextVideoForConditionalGeneration, travel: Travel, lesson: Lesson) -> torch.Tensor:
    """Return the loss per token of the answers, and of how far shapes have come."""
    videos, tokens, learnt, poses = lesson
    hidden = model.model(input_ids=tokens, pixel_values_videos=videos).last_hidden_state
    targets = learnt[:, 1:]
    said = cross_entropy(model.lm_head(hidden[:, :-1][targets]), tokens[:, 1:][targets])
    loss: torch.Tensor = said + 10 * travel(hidden, tokens, poses)
    return loss


@torch.inference_mode()
def ask(
    model: LlavaNextVideoForConditionalGeneration,
    processor: LlavaNextVideoProcessor,
    clips: Sequence[Sequence[Frame]],
    prompts: Sequence[str],
) -> list[str]:
    """Ask one question about each clip; clips have as many frames each."""
    inputs = processor(
        videos=[np.stack(frames) for frames in clips],
        text=[prompt(VIDEO, text) for text in prompts],
        padding=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, do_sample=False, max_new_tokens=16)
    answers = processor.batch_decode(output[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
    return [text.strip() for text in answers]


def exam(count: int, rng: random.Random) -> list[tuple[Clip, dict[str, Exchange]]]:
    """Draw held-out clips, all motions in turn, and what to ask about each."""
    motions = list(MOTIONS)
    clips = [draw_clip(rng, held_out=True, sampled=FRAMES, motion=motions[i % len(motions)]) for i in range(count)]
    return [(clip, exchanges(clip, rng)) for clip in clips]


def examine(model: LlavaNextVideoForConditionalGeneration, processor: LlavaNextVideoProcessor) -> dict[str, float]:
    """Measure the share of questions about held-out clips answered exactly; also with nothing to see."""
    scores = {}
    rng = random.Random("exam")
    asked = exam(EXAMINED, rng)
    for subject in ("motion", "shape", "colour", "all"):
        questions = [exchange[subject] for _, exchange in asked]
        prompts = [question.prompt for question in questions]
        for name, clips in (
            ("", [clip.frames for clip, _ in asked]),
            (", nothing in the picture", [still_clip(rng, FRAMES) for _ in asked]),
        ):
            replies = ask(model, processor, clips, prompts)
            scores[f"{subject}{name}"] = share_right(replies, [question.reply for question in questions])
    return scores


def main() -> None:
    """Train, examine and write the model."""
    chosen = arguments("Train the sample model demo-video.", PLAN, Path(__file__).parent / CARD.name)
    processor = build_processor()
    model, patches = build_model(processor.tokenizer), Patches(WIDTH, SIDE, PATCH, reach=2 * SIDE)
    print(f"{model.num_parameters():,} parameters, {len(processor.tokenizer)} tokens")
    tower = (model.model.vision_tower, patches)
    minutes = fit(tower, sights(processor), lambda sight: looking_loss(model, patches, sight), LOOKING)
    plan = replace(PLAN, steps=chosen.steps)
    model.model.vision_tower.requires_grad_(False)
    travel = Travel(model.config.video_token_index)
    minutes += fit((model, travel), lessons(processor), lambda lesson: loss_of(model, travel, lesson), plan)
    model.eval()
    with replacing(chosen.out) as folder:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        CARD.write(folder, model, minutes, examine(model, processor))
    print(f"wrote {chosen.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
