"""Build the shipped weights: `python -m helpers.pretrain teacher|student`.

The teacher learns our shop from endless examples. The student base never sees it: it
repeats tokens, looks things up, adds, and works in six other shops, so it comes out as
an instruct model does from a hub, able but ignorant of our prices, policies and steps.

Matrices are trained with Muon (Jordan et al. 2024), everything else with AdamW.
"""

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from tqdm.auto import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from .. import world
from ..data.tokens import IGNORE_INDEX, collate
from ..generate.teachers import answer
from ..world.shops import OTHER_SHOPS, OUR_SHOP, Shop
from ..world.verifier import TASKS
from .curriculum import CORPORA, batches, text_rows

WEIGHTS = Path(__file__).parents[1] / "weights"
PARTIAL = WEIGHTS / ".partial"  # finished stages of a run under way; git ignores it
RUN_CARD, LOG = "run_card.json", "log.json"
SHAPES = {
    "teacher": dict(hidden_size=128, intermediate_size=384, num_hidden_layers=32,
                    num_attention_heads=4, num_key_value_heads=4),
    "student": dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                    num_attention_heads=4, num_key_value_heads=4),
}  # fmt: skip


# ---------------------------------------------------------------- the recipe


def new_model(tokenizer, shape: dict) -> LlamaForCausalLM:
    """A Llama with random weights, input and output embeddings tied."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=512,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=None,
            **shape,
        )
    )


def grow(model: LlamaForCausalLM, tokenizer) -> LlamaForCausalLM:
    """Twice the layers, the same function: behind each layer stands a copy of it whose
    two output matrices are zero (block expansion, Wu et al. 2024)."""
    shape = {key: getattr(model.config, key) for key in SHAPES["teacher"]}
    shape["num_hidden_layers"] *= 2
    bigger = new_model(tokenizer, shape)
    bigger.model.embed_tokens.load_state_dict(model.model.embed_tokens.state_dict())
    bigger.model.norm.load_state_dict(model.model.norm.state_dict())
    for i, layer in enumerate(bigger.model.layers):
        layer.load_state_dict(model.model.layers[i // 2].state_dict())
        if i % 2:
            torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
            torch.nn.init.zeros_(layer.mlp.down_proj.weight)
    return bigger


def optimise(
    model: LlamaForCausalLM,
    stream: Iterator[list[dict]],
    steps: int,
    *,
    learning_rate: float,
    prompt_weight: float = 0.0,
    cool_down: float = 0.0,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train in place: a short warm-up, a flat rate, and a linear cool-down over the
    last `cool_down` share of the steps.

    The loss is cross-entropy over the labels plus `prompt_weight` times that over all
    other tokens (a little of it helps copying to form).
    """
    matrices = [
        p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n
    ]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimisers = [
        torch.optim.Muon(
            matrices,
            lr=learning_rate,
            weight_decay=0.05,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        ),
    ]
    model.train()
    running = 0.0
    for step in range(1, steps + 1):
        left = (steps - step + 1) / max(1, cool_down * steps)
        batch = collate(next(stream), model.config.pad_token_id)
        # Padding stands on the right and attention is causal, so no mask is needed.
        hidden = model.model(input_ids=batch["input_ids"]).last_hidden_state[:, :-1]
        targets, labels = batch["input_ids"][:, 1:], batch["labels"][:, 1:]
        real = batch["attention_mask"][:, 1:].bool()
        weights = torch.where(labels != IGNORE_INDEX, 1.0, prompt_weight)[real]
        per_token = torch.nn.functional.cross_entropy(
            model.lm_head(hidden[real]), targets[real], reduction="none"
        )
        loss = (per_token * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * min(1, step / 50, left)
            optimiser.step()
        model.zero_grad(set_to_none=True)
        running += max(0.02, 1 / step) * (loss.item() - running)
        report(step, running)
    model.eval()


@dataclass(frozen=True)
class Stage:
    """One leg of a recipe: what to read, how deep, how long, how fast."""

    corpora: tuple[str, ...]  # keys of CORPORA
    layers: int
    steps: int
    learning_rate: float
    prompt_weight: float = 0.0
    cool_down: float = 0.0


RECIPES = {
    # Shallow first, where steps are cheap; then deeper. The last doubling adds nothing
    # to the accuracy (.971 before and after): it makes the teacher as slow beside its
    # student as large teachers are.
    "teacher": (
        Stage(("echo",), 4, 300, 4e-3),
        Stage(("echo", "reading", "sums", "our shop"), 4, 1800, 4e-3),
        Stage(("our shop",), 8, 1500, 3e-3),
        Stage(("our shop",), 16, 400, 2e-3, cool_down=1.0),
        Stage(("our shop",), 32, 300, 2e-3, cool_down=1.0),
    ),
    "student": (
        Stage(("echo",), 3, 300, 6e-3),
        Stage(("echo", "reading", "sums", "other shops"), 3, 2500, 6e-3),
        Stage(("other shops",), 3, 5500, 6e-3, cool_down=0.7),
    ),
}
BATCH_SIZE = 32


def pretrain(name: str, tokenizer, log: "Log") -> LlamaForCausalLM:
    """Follow the recipe of `name`, growing the model where a stage is deeper.

    Each finished stage is kept in `PARTIAL`, so a killed run goes on from there.
    """
    model = None
    for number, stage in enumerate(RECIPES[name]):
        finished = PARTIAL / f"{name}-{number}"
        if (finished / LOG).exists():
            model = LlamaForCausalLM.from_pretrained(finished)
            log.resume(json.loads((finished / LOG).read_text()))
            continue
        if model is None:
            shape = {**SHAPES[name], "num_hidden_layers": stage.layers}
            model = new_model(tokenizer, shape)
        while model.config.num_hidden_layers < stage.layers:
            model = grow(model, tokenizer)

        def draw(chunk: int, stage=stage, number=number) -> list[dict]:
            seed = 1_000_000 * (number + 1) + chunk
            share = 6400 // len(stage.corpora)
            return [
                r for c in stage.corpora for r in CORPORA[c](tokenizer, share, seed)
            ]

        optimise(
            model,
            batches(draw, BATCH_SIZE),
            stage.steps,
            learning_rate=stage.learning_rate,
            prompt_weight=stage.prompt_weight,
            cool_down=stage.cool_down,
            report=log.stage(model, stage),
        )
        model.save_pretrained(finished)
        (finished / LOG).write_text(json.dumps(log.lines))
    return model


def plain_text_base(tokenizer, steps: int = 1500) -> LlamaForCausalLM:
    """A model of the student's shape that has read plain text and no task at all."""
    torch.manual_seed(0)
    model = new_model(tokenizer, SHAPES["student"])
    stream = batches(partial(text_rows, tokenizer, 3200), BATCH_SIZE)
    optimise(model, stream, steps, learning_rate=6e-3, cool_down=0.4)
    return model


# ---------------------------------------------------------------- measuring and saving


def accuracy(model, tokenizer, split: str, n: int, shop: Shop = OUR_SHOP) -> dict:
    """Share of right answers by task and over all, on `n` examples, judged by
    `verify`."""
    drawn = world.examples(split, n, seed=0, shop=shop)
    said = answer(model, tokenizer, [e.messages for e in drawn])
    right: dict[str, list[bool]] = {task: [] for task in TASKS}
    for example, text in zip(drawn, said, strict=True):
        right[example.task].append(world.verify(example, text))
    shares = {task: round(sum(r) / len(r), 4) for task, r in right.items()}
    return {**shares, "all": round(sum(map(sum, right.values())) / n, 4)}


class Log:
    """Progress on screen, and a line for the run card every few hundred steps."""

    def __init__(self, tokenizer, every: int = 400):
        self.tokenizer, self.every, self.lines = tokenizer, every, []
        self.before, self.start = 0.0, time.perf_counter()

    @property
    def minutes(self) -> float:
        """Minutes of training, those before a kill included."""
        return round(self.before + (time.perf_counter() - self.start) / 60, 1)

    def resume(self, lines: list[dict]) -> None:
        """Go on behind the lines of a finished stage."""
        self.lines, self.start = lines, time.perf_counter()
        self.before = lines[-1]["minutes"] if lines else 0.0

    def stage(self, model, stage: Stage) -> Callable[[int, float], None]:
        name = f"{' + '.join(stage.corpora)}, {stage.layers} layers"
        bar = tqdm(total=stage.steps, desc=name, mininterval=5)
        shop = OUR_SHOP if "our shop" in stage.corpora else OTHER_SHOPS[0]

        def report(step: int, loss: float) -> None:
            bar.update()
            if step % self.every == 0 or step == stage.steps:
                right = accuracy(model, self.tokenizer, "validation", 200, shop)
                model.train()
                line = {"stage": name, "step": step, "loss": round(loss, 4)}
                self.lines.append(
                    {**line, "validation": right, "minutes": self.minutes}
                )
                print(json.dumps(self.lines[-1]), flush=True)

        return report


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in `folder` except the run card itself."""
    files = sorted(p for p in folder.iterdir() if p.name != RUN_CARD)
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def build(name: str, folder: Path, seed: int, threads: int) -> dict:
    """Train `name` ("teacher" or "student"), save it to `folder`, return its run
    card."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    log = Log(tokenizer)
    model = pretrain(name, tokenizer, log)
    model.config.use_cache = True
    model.half().save_pretrained(folder)  # half the bytes; loaded in float32 on a CPU
    tokenizer.save_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    card = {
        "command": f"python -m helpers.pretrain {name} --seed {seed}",
        "recipe": [asdict(stage) for stage in RECIPES[name]],
        "shape": SHAPES[name],
        "parameters": model.num_parameters(),
        "seed": seed,
        "minutes": log.minutes,
        "device": f"cpu, {threads} threads, float32",
        "versions": {p: metadata.version(p) for p in ("torch", "transformers")},
        "accuracy": {
            s: accuracy(model, tokenizer, s, 1000) for s in ("test", "shifted")
        },
        "accuracy_other_shop": accuracy(model, tokenizer, "test", 500, OTHER_SHOPS[0]),
        "sha256": checksums(folder),
        "log": log.lines,
    }
    (folder / RUN_CARD).write_text(json.dumps(card, indent=1) + "\n")
    for finished in PARTIAL.glob(f"{name}-*"):
        shutil.rmtree(finished)
    return card


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m helpers.pretrain", description=__doc__
    )
    parser.add_argument("name", choices=sorted(SHAPES))
    parser.add_argument("--out", type=Path, help="default: the shipped folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    card = build(args.name, args.out or WEIGHTS / args.name, args.seed, args.threads)
    print(json.dumps({key: card[key] for key in ("minutes", "parameters", "accuracy")}))
