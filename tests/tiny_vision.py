"""Tiny models that see, made in a moment from their configs."""

from pathlib import Path


def tiny_llava(folder: Path, *, side: int = 32, patch: int = 8, context: int = 4096) -> Path:
    """Saves a random LLaVA whose pictures take (side / patch)² tokens into `folder` and returns it."""
    import transformers as hf

    from tests.architectures.vision_builders import CLIP, llama_tokenizer, save, text_config, token_id

    tokenizer = llama_tokenizer("<image>")
    config = hf.LlavaConfig(
        vision_config={**CLIP, "image_size": side, "patch_size": patch},
        text_config=text_config("llama", tokenizer, max_position_embeddings=context),
        image_token_index=token_id(tokenizer, "<image>"),
    )
    pictures = hf.CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    processor = hf.LlavaProcessor(
        pictures, tokenizer, patch_size=patch, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    save(folder, hf.LlavaForConditionalGeneration(config), processor)
    return folder
