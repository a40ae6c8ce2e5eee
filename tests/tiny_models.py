"""Tiny models of real architectures, made in a moment from their configs."""

from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_llama(
    folder: Path, *, seed: int = 0, chat: bool = False, context: int = 10_000, hidden: int = 32, layers: int = 2
) -> Path:
    """Saves a random Llama with a byte-level tokenizer (one token a byte) into `folder` and returns it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=context
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def scripted_llama(folder: Path, text: str, *, other_start: str | None = None) -> Path:
    """Saves a Llama that says `text` and ends, whatever it is asked; each byte of the text must be different.

    Its greedy answer is the text; with `other_start`, a letter of the text, sampling starts there as often.
    Made to go on after the text, it says it again.
    """
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM

    tiny_llama(folder, hidden=264, layers=1)
    model, tokenizer = LlamaForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    said = tokenizer(text)["input_ids"]
    assert len(set(said)) == len(said)
    with torch.no_grad():
        # Attention and the layer behind it add nothing, so that each token alone decides the next one.
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(model.config.vocab_size, 264))
        head = model.lm_head.weight.zero_()
        head[said[0], :] = 5.0
        if other_start is not None:
            head[tokenizer(other_start)["input_ids"][0], :] = 4.99
        for token, following in zip(said, [*said[1:], tokenizer.eos_token_id], strict=True):
            head[:, token] = 0.0
            head[following, token] = 5.0
        head[said[0], said[-1]] = 1.0
    model.save_pretrained(folder)
    return folder
