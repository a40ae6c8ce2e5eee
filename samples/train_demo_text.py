"""Trains the sample model `demo-text` from nothing, on the CPU.

    python -m samples.train_demo_text [--out samples/demo-text] [--minutes 14]

A Llama of two layers learns to add and subtract from `samples.arithmetic`. The optimiser is Muon
for the matrices and AdamW for the embedding and the norms; Muon needs about half of AdamW's
steps here. It takes nine minutes of processor time, shared by two threads. The same seed gives the
same bytes on the same machine, unless `--minutes` cuts in.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

# Threads that spin while they wait starve each other as soon as other work shares the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from samples.arithmetic import training_conversations
from samples.chat_format import BEGIN, CONTEXT, END, PAD, SPECIAL, build_tokenizer, encode
from samples.model_card import write_card

SEED = 0
STEPS = 2600
BATCH = 128
WARMUP = 100
MATRIX_RATE, VECTOR_RATE = 0.02, 0.003


def build_model(vocabulary: int) -> LlamaForCausalLM:
    """Build the untrained model."""
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=160,
        intermediate_size=432,
        num_hidden_layers=2,
        num_attention_heads=5,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=SPECIAL.index(BEGIN),
        eos_token_id=SPECIAL.index(END),
        pad_token_id=SPECIAL.index(PAD),
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )
    return model


def batches(tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield token ids and learnt marks, (batch, length) each, of samples alike in length."""
    rng = random.Random(SEED)
    source = training_conversations(SEED)
    while True:
        pool = [encode(tokenizer, conversation) for conversation in islice(source, BATCH * 16)]
        # Callers differ in whether they add the begin token once, twice or never.
        pool = [row[:1] * rng.choices((1, 0, 2), (18, 1, 1))[0] + row[1:] for row in pool]
        pool.sort(key=len)
        groups = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
        rng.shuffle(groups)
        for group in groups:
            length = len(group[-1])
            padded = [row + [(SPECIAL.index(PAD), False)] * (length - len(row)) for row in group]
            table = torch.tensor(padded)
            yield table[..., 0], table[..., 1].bool()


def build_optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Give the layers' matrices to Muon and all else to AdamW."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05),
        torch.optim.AdamW(others, lr=VECTOR_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def train(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, minutes: float) -> None:
    """Train until the steps or the minutes are spent; the rates fall to nothing by then.

    The clock weighs in only over the last fifth of the minutes, so that a run that ends before
    is the same on a busy machine and on an idle one.
    """
    optimizers = build_optimizers(model)
    groups = [(group, group["lr"]) for o in optimizers for group in o.param_groups]
    start = time.monotonic()
    for step, (tokens, learnt) in enumerate(batches(tokenizer)):
        elapsed = time.monotonic() - start
        left = min(1 - step / STEPS, 5 * (1 - elapsed / (60 * minutes)))
        if left <= 0:
            return
        for group, rate in groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARMUP) * left
        loss = train_step(model, optimizers, tokens, learnt)
        if step % 100 == 0:
            print(f"step {step:5}/{STEPS}  loss {loss:.4f}  {elapsed:4.0f} s", flush=True)


def train_step(
    model: LlamaForCausalLM,
    optimizers: Sequence[torch.optim.Optimizer],
    tokens: torch.Tensor,
    learnt: torch.Tensor,
) -> float:
    """Take one step on the replies of a batch and return their mean loss per token."""
    hidden = model.model(input_ids=tokens).last_hidden_state[:, :-1]
    targets = learnt[:, 1:]
    loss = cross_entropy(model.lm_head(hidden[targets]), tokens[:, 1:][targets])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Lend an empty folder that takes the place of `out` once the block succeeds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        fresh = Path(scratch, "new")
        fresh.mkdir()
        yield fresh
        for file in fresh.iterdir():
            file.chmod(0o644)
        if out.exists():
            out.rename(Path(scratch, "old"))
        fresh.rename(out)


def main() -> None:
    """Train, examine and write the model."""
    parser = argparse.ArgumentParser(description="Train the sample model demo-text.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "demo-text")
    parser.add_argument("--minutes", type=float, default=14.0, help="most time to train for")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer()
    model = build_model(len(tokenizer))
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens")
    before = time.monotonic(), time.process_time()
    train(model, tokenizer, arguments.minutes)
    minutes = (time.monotonic() - before[0]) / 60
    processor = (time.process_time() - before[1]) / 60
    model.eval()
    with replacing(arguments.out) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_card(folder, model, tokenizer, minutes=minutes, processor=processor)
    print(f"wrote {arguments.out} after {minutes:.1f} min of training")


if __name__ == "__main__":
    main()
