"""Lab 04: the layer, its place in a model, the merge, the memory, the training."""

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
)

from ... import models, profile, train
from ...data.tokens import collate
from ...memory import ledger
from .base import Mistake, close, question, that

SIZES = ((24, 10, 4, 12.0, True), (6, 15, 2, 1.0, False))  # in, out, rank, alpha, bias


def _layer(kind, n_in, n_out, rank, alpha, bias=True, seed=0, trained=True):
    """The learner's layer over a linear layer of ours, with A and B as if trained."""
    torch.manual_seed(seed)
    base = nn.Linear(n_in, n_out, bias)
    layer = kind(base, rank, alpha)
    _shapes(layer, n_in, n_out, rank)
    if trained:
        with torch.no_grad():
            layer.A.copy_(torch.randn(rank, n_in))
            layer.B.copy_(torch.randn(n_out, rank))
    return layer, copy.deepcopy(base)


def _shapes(layer, n_in, n_out, rank):
    for name, shape in {"A": (rank, n_in), "B": (n_out, rank)}.items():
        matrix = getattr(layer, name, None)
        that(isinstance(matrix, Tensor), f"the layer has no matrix called {name}")
        that(
            isinstance(matrix, nn.Parameter),
            f"{name} is no nn.Parameter, so no optimiser will find it",
        )
        that(
            matrix.shape == shape,
            f"{name} is {tuple(matrix.shape)}, for rank {rank} over a layer from "
            f"{n_in} to {n_out} it should be {shape}: B @ A must have the shape of W, "
            "(out, in)",
        )


def _x(n_in, *shape):
    return torch.randn(*shape, n_in, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- 1: the layer


@question("Question 1, start", "Make A, B and the frozen base in `__init__`.")
def q1_start(kind: type[nn.Module]) -> None:
    """What a new layer holds, and that it starts as its base and can learn."""
    for sizes in SIZES:
        layer, base = _layer(kind, *sizes, trained=False)
        x = _x(sizes[0], 5)
        ours = {name for name, p in layer.named_parameters() if p.requires_grad}
        base_trains = any(
            p.requires_grad
            for p in layer.parameters()
            if p is not layer.A and p is not layer.B
        )
        that(
            not base_trains,
            "the base can still be trained: only A and B may require a gradient",
        )
        that(
            layer.A.requires_grad and layer.B.requires_grad,
            f"A and B must both require a gradient, and only {sorted(ours)} do",
        )
        zero = [name for name in "AB" if not getattr(layer, name).any()]
        that(
            len(zero) < 2,
            "A and B are both zero, so the gradient of each is zero and nothing is "
            "ever learnt: which of the two may be zero?",
        )
        close(
            layer(x),
            base(x),
            otherwise="A new layer must answer as its base does: is one of A and B "
            "zero at the start, and is the bias still there?",
        )
        random = layer.A if "B" in zero else layer.B
        that(
            torch.linalg.matrix_rank(random) == min(random.shape),
            "the matrix that is not zero has equal rows: the update would have rank 1, "
            "whatever `rank` says. Draw it at random",
        )
        layer(x).square().sum().backward()
        that(
            any(p.grad is not None and p.grad.any() for p in (layer.A, layer.B)),
            "no gradient reaches A or B: does `forward` use them as they are, without "
            "detach, item or no_grad?",
        )


@question("Question 1, forward", "Add the update to what the base answers.")
def q1_forward(kind: type[nn.Module], seed: int = 0) -> None:
    """The layer against peft's, given the same A and B."""
    for n_in, n_out, rank, alpha, bias in SIZES:
        layer, base = _layer(kind, n_in, n_out, rank, alpha, bias, seed)
        x, linear = _x(n_in, 2, 3), base.weight
        update = (x @ layer.A.T @ layer.B.T).detach()
        settings = LoraConfig(r=rank, lora_alpha=alpha, target_modules=["0"])
        theirs = get_peft_model(nn.Sequential(copy.deepcopy(base)), settings)
        module = theirs.base_model.model[0]
        with torch.no_grad():
            module.lora_A["default"].weight.copy_(layer.A)
            module.lora_B["default"].weight.copy_(layer.B)
            mistakes = {
                "the update counts alpha times: alpha is divided by the rank, so that "
                "another rank needs no other learning rate": base(x) + alpha * update,
                "the update is scaled by rank / alpha: turn the fraction over": base(x)
                + rank / alpha * update,
                "the update is not scaled: where is alpha / rank?": base(x) + update,
                "the update is divided by the rank, and alpha is not used": base(x)
                + update / rank,
                "only the update is there: where is what the base answers?": alpha
                / rank
                * update,
                "the bias of the base is lost": x @ linear.T + alpha / rank * update,
                "the update is taken away instead of added": base(x)
                - alpha / rank * update,
                "the update is not there: the layer answers as its base": base(x),
            }
            close(
                layer(x),
                theirs(x),
                mistakes,
                otherwise="peft, given your A and B, answers otherwise: is it "
                "W x + bias + scale · B A x?",
            )


# ---------------------------------------------------------------- 2: the model


SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 1,
}


def small_model(tied: bool = False, family: str = "llama") -> PreTrainedModel:
    """A random model of a few thousand parameters; Phi-3's layers have other names."""
    torch.manual_seed(0)
    settings = SMALL | {"tie_word_embeddings": tied}
    if family == "phi3":
        return Phi3ForCausalLM(Phi3Config(**settings)).eval()
    return LlamaForCausalLM(LlamaConfig(**settings, attention_bias=True)).eval()


def _linear(model: nn.Module, head: bool = False) -> dict[str, nn.Linear]:
    output = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (head or module is not output)
    }


def _size(model: nn.Module, of: Callable, head: bool = False) -> int:
    return sum(of(m.in_features, m.out_features) for m in _linear(model, head).values())


@question("Question 2, adapt", "Exchange the linear layers, then freeze the rest.")
def q2_adapt(adapt: Callable, kind: type[nn.Module], family: str = "llama") -> None:
    """Which layers of a model got an update, and that nothing else is trained."""
    for tied in (True, False):
        model = small_model(tied, family)
        wanted, tokens = set(_linear(model)), torch.arange(12).view(2, 6)
        output = model.get_output_embeddings()
        before = model(tokens).logits
        adapted = adapt(model, 2, 4.0)
        that(
            isinstance(adapted, nn.Module),
            f"`adapt` returned {type(adapted).__name__}: return the model",
        )
        found = {n for n, m in adapted.named_modules() if isinstance(m, kind)}
        nested = [n for n in found if any(n.startswith(f"{o}.") for o in found)]
        that(
            not nested,
            "an update lies inside another update: new layers hold a linear layer too, "
            "and the walk went into them. Make the list first, then exchange",
        )
        that(
            adapted.get_output_embeddings() is output,
            "the output head is adapted too: leave it out. It is the embedding matrix "
            "where both are tied, and the largest matrix of a small model",
        )
        missing = sorted(wanted - found)
        that(
            not missing,
            f"{len(missing)} of {len(wanted)} linear layers got no update, the first "
            f"is {missing[0] if missing else ''}: ask for the type nn.Linear, since "
            "names differ from family to family",
        )
        inner = [m for n, m in adapted.named_modules() if n in found]
        mine = {id(p) for m in inner for p in (m.A, m.B)}
        loose = [
            n
            for n, p in adapted.named_parameters()
            if p.requires_grad and id(p) not in mine
        ]
        that(
            not loose,
            f"more than A and B is trained, such as {loose[0] if loose else ''}: "
            "freeze the whole model before you exchange its layers",
        )
        that(
            all(p.requires_grad for m in inner for p in (m.A, m.B)),
            "A and B do not require a gradient: were they frozen with the rest?",
        )
        that(
            len({m.A.shape[0] for m in inner}) == 1 and inner[0].A.shape[0] == 2,
            "the rank of the updates is not the one that was asked for",
        )
        close(
            adapted(tokens).logits,
            before,
            otherwise="The adapted model must start with the logits of its base",
        )


@question("Question 2, count", "Sum over the layers that `adapt` would exchange.")
def q2_count(count: Callable, seed: int = 0) -> None:
    """The formula, on models that are not adapted yet."""
    for family, tied, rank in (("llama", True, 3), ("phi3", False, 5 + seed)):
        model = small_model(tied, family)

        def by(of, head=False, model=model):
            return _size(model, of, head)

        close(
            count(model, rank),
            rank * by(lambda a, b: a + b),
            {
                "the output head is counted, and it gets no update": rank
                * by(lambda a, b: a + b, head=True),
                "that is r · in · out: A and B are narrow, so sizes are added": rank
                * by(lambda a, b: a * b),
                "that is the full matrices: what does rank do?": by(lambda a, b: a * b),
                "that is A alone: B has r · out numbers": rank * by(lambda a, b: a),
                "that is B alone: A has r · in numbers": rank * by(lambda a, b: b),
                "that is 2 · r · in, as if every matrix were square": 2
                * rank
                * by(lambda a, b: a),
                "that is 2 · r · out, as if every matrix were square": 2
                * rank
                * by(lambda a, b: b),
                "the rank is missing": by(lambda a, b: a + b),
                "biases are counted: they get no update": rank * by(lambda a, b: a + b)
                + sum(
                    m.out_features
                    for m in _linear(model).values()
                    if m.bias is not None
                ),
            },
            otherwise="Each linear layer but the output head has A, (r, in), and B, "
            "(out, r)",
            rtol=0,
        )


@question("Question 2, share", "Divide what is trained by all there is.")
def q2_share(share: Callable, rank: int = 4) -> None:
    """The trained share, in models with and without a tied output matrix."""
    for tied in (True, False):
        model = models.add_lora(small_model(tied), rank)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        everything = sum(p.numel() for p in model.parameters())
        state = sum(value.numel() for value in model.state_dict().values())
        close(
            share(model),
            trained / everything,
            {
                "the tied matrix is counted twice: embedding and output head are the "
                "same numbers": trained / state,
                "that is trained / frozen: the adapters belong to all numbers, too": (
                    trained / (everything - trained)
                ),
                "that is a percentage: return a share between 0 and 1": (
                    100 * trained / everything
                ),
                "that is the frozen share": 1 - trained / everything,
                "that counts matrices, not the numbers in them": sum(
                    p.requires_grad for p in model.parameters()
                )
                / len(list(model.parameters())),
            },
            otherwise="Trained numbers / all numbers, the adapters included",
        )


# ---------------------------------------------------------------- 3: the merge


@question("Question 3, merge", "Add the update to a copy of the weight.")
def q3_merge(merge: Callable, kind: type[nn.Module], seed: int = 0) -> None:
    """The merged weight, its bias, and that it is a plain layer."""
    for sizes in SIZES:
        n_in, n_out, rank, alpha, bias = sizes
        layer, base = _layer(kind, *sizes, seed=seed)
        x = _x(n_in, 7)
        answers = layer(x).detach().clone()
        merged = merge(layer)
        that(
            type(merged) is nn.Linear,
            f"a plain nn.Linear is wanted, not {type(merged).__name__}",
        )
        W, update = base.weight.detach(), (layer.B @ layer.A).detach()
        close(
            merged.weight,
            W + alpha / rank * update,
            {
                "the update is merged without its scale": W + update,
                "the update is merged with alpha, not alpha / rank": W + alpha * update,
                "the update is merged with rank / alpha": W + rank / alpha * update,
                "the update is taken away instead of added": W - alpha / rank * update,
                "the weight is the base's: the update was not added": W,
                "the weight is the update alone": alpha / rank * update,
                "the update is in there twice": W + 2 * alpha / rank * update,
            },
            otherwise="The weight should be W + scale · B A",
        )
        lost = "the bias of the base is lost or another one: copy it"
        that(bias == (merged.bias is not None), lost)
        that(not bias or torch.equal(merged.bias, base.bias), lost)
        close(merged(x), answers, rtol=1e-3, atol=1e-4)


@question("Question 3, again", "Return a new layer; leave the adapted one alone.")
def q3_again(merge: Callable, unmerge: Callable, kind: type[nn.Module]) -> None:
    """Merging twice, and taking the update out again."""
    for seed, sizes in enumerate(SIZES):
        layer, base = _layer(kind, *sizes, seed=seed)
        x = _x(sizes[0], 4)
        before = layer(x).detach().clone()
        try:
            first = merge(layer).weight.detach().clone()
            second = merge(layer).weight.detach().clone()
        except Mistake:
            raise
        except Exception as error:
            raise Mistake(
                f"merging twice raised {type(error).__name__}: {error}"
            ) from None
        that(
            torch.allclose(first, second),
            "merged twice, the update counts twice: the first call has changed the "
            "base's weight in place. Work on a copy",
        )
        close(
            layer(x),
            before,
            otherwise="After `merge` the adapted layer answers otherwise: its base was "
            "changed in place",
        )
        merged = merge(layer)
        kept = merged.weight.detach().clone()
        plain = unmerge(merged, layer)
        that(
            isinstance(plain, nn.Linear),
            "`unmerge` should return an nn.Linear, the base again",
        )
        update = (layer.B @ layer.A).detach()
        close(
            plain.weight,
            base.weight,
            {
                "the update is still in it": kept,
                "the update was added once more: take it away": 2 * kept - base.weight,
                "the update was taken away without its scale": kept - update,
            },
            otherwise="merge, then unmerge, should give the base's weight again",
            atol=1e-4,
        )
        that(
            (plain.bias is None) == (base.bias is None)
            and (base.bias is None or torch.equal(plain.bias, base.bias)),
            "`unmerge` lost or changed the bias",
        )


@question("Question 3, four bits", "Raise a ValueError where the base is in 4 bits.")
def q3_four_bits(merge: Callable, kind: type[nn.Module]) -> None:
    """A base in 4 bits cannot hold the sum: `merge` must say so."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    base = bnb.nn.Linear4bit(64, 64, bias=False, quant_type="nf4")
    layer = kind(base.to("cpu"), 4, 8.0)
    with torch.no_grad():
        layer.B.normal_()
    try:
        merge(layer)
    except ValueError as error:
        that(
            len(str(error).split()) >= 5,
            "the error should say in a sentence what to do instead",
        )
    except (RuntimeError, TypeError, AssertionError) as error:
        raise Mistake(
            f"a base in 4 bits ends in {type(error).__name__} ({error}), which tells "
            "nobody what to do: look first, and raise a ValueError that does"
        ) from None
    else:
        raise Mistake(
            "a base in 4 bits was merged without a word: the sum is rounded to 16 "
            "levels, and that is another model. Raise a ValueError"
        )
    q3 = kind(nn.Linear(64, 64, bias=False), 4, 8.0)
    try:
        merge(q3)
    except ValueError:
        raise Mistake("a base in full precision is refused as well") from None


def merged_model(model: nn.Module, kind: type[nn.Module], merge: Callable) -> nn.Module:
    """A copy of an adapted model in which every update is merged."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, kind):
            model.set_submodule(name, merge(module))
    return model


# ---------------------------------------------------------------- 4: the memory


PARTS = ("weights", "adapters", "gradients", "optimiser")


@question("Question 4, bytes", "Four products; 8 bits are a byte.")
def q4_bytes(training_bytes: Callable, seed: int = 0) -> None:
    """Each part against its formula, and what each mistake would give for it."""
    for frozen, trained, bits in (
        (8_000_000, 50_000 + seed, 16),
        (3_000, 200, 32),
        (64_000, 1_000, 4),
        (0, 7_000, 32),
    ):
        found = training_bytes(frozen, trained, bits)
        that(
            isinstance(found, Mapping) and set(found) == set(PARTS),
            f"a dictionary with the keys {', '.join(PARTS)} is wanted",
        )
        small = 4 * trained
        otherwise = "in bytes, for what is trained in float32"
        close(
            found["weights"],
            frozen * bits / 8,
            {
                "`weights` is in bits: 8 bits are a byte": frozen * bits,
                "`weights` counts 4 bytes for each number: use `bits`": 4 * frozen,
                "`weights` holds the adapters, too: they have a part of their own": (
                    frozen * bits / 8 + small
                ),
                "`weights` is in GiB: return bytes": frozen * bits / 8 / 2**30,
                "`weights` is in GB: return bytes": frozen * bits / 8 / 1e9,
                "the frozen base is forgotten: it is not trained, but it is there": 0,
            },
            otherwise=f"`weights`: {frozen:,} numbers of {bits} bits",
        )
        close(
            found["adapters"],
            small,
            {
                "`adapters` are stored in `bits`: A and B are float32": (
                    trained * bits / 8
                ),
                "`adapters` counts numbers: a float32 has 4 bytes": trained,
            },
            otherwise=f"`adapters`, {otherwise}",
        )
        close(
            found["gradients"],
            small,
            {
                "`gradients` are counted for frozen weights: they get none": (
                    4 * (frozen + trained)
                ),
                "`gradients` of frozen weights: they get none": frozen * bits / 8
                + small,
                "`gradients` have the type of what they belong to, float32": (
                    trained * bits / 8
                ),
                "`gradients` counts numbers: a float32 has 4 bytes": trained,
            },
            otherwise=f"`gradients`, {otherwise}",
        )
        close(
            found["optimiser"],
            2 * small,
            {
                "`optimiser` counts Adam's moments for frozen weights: Adam knows only "
                "what is trained": 8 * (frozen + trained),
                "Adam keeps two moments of each trained number, not one": small,
                "`optimiser` holds weights and gradients, too: only the moments": (
                    4 * small
                ),
                "`optimiser` holds the gradients, too: only the moments": 3 * small,
                "`optimiser` counts numbers: a float32 has 4 bytes": 2 * trained,
                "the moments are float32, whatever the base is stored in": 2
                * trained
                * bits
                / 8,
            },
            otherwise=f"`optimiser`, {otherwise}",
        )


@question("Question 4, model", "Count the model, then call `training_bytes`.")
def q4_model(held_bytes: Callable) -> None:
    """The prediction against a real step of Adam, tensor by tensor."""
    for tied in (True, False):
        model = models.add_lora(small_model(tied), 4)
        everything = sum(p.numel() for p in model.parameters())
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        extra = sum(v.numel() for v in model.state_dict().values()) - everything
        measured = held_by_training(
            model, [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}]
        )
        close(
            held_bytes(model),
            measured,
            {
                "the tied matrix is counted twice": measured + 4 * extra,
                "frozen weights are counted as trained: look at requires_grad": (
                    16 * everything
                ),
                "all numbers count as frozen, and the trained ones once more": (
                    measured + 4 * trained
                ),
                "the frozen weights are missing": 16 * trained,
                "the trained numbers are missing": 4 * (everything - trained),
                "that is numbers, not bytes": measured / 4,
            },
            otherwise="That is bytes after a real step: weights, adapters, gradients "
            "and moments together",
            rtol=0.01,
        )
    half = models.add_lora(small_model().to(torch.bfloat16), 4)
    close(
        held_bytes(half),
        held_by_training(half, [{"input_ids": [1, 2], "labels": [1, 2]}]),
        otherwise="The frozen weights are bfloat16 here: ask them how large they are, "
        "with `element_size()`, instead of taking 32 bits for granted",
        rtol=0.01,
    )


def held_by_training(model: PreTrainedModel, rows: Sequence[dict]) -> int:
    """Bytes of weights, gradients and Adam's moments after one real step.

    Every tensor once, activations not: these are gone by then. The model is a copy.
    """
    model = copy.deepcopy(model).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=0.0)
    batch = collate(rows, pad_token_id=0)
    model(**{k: v.to(model.device) for k, v in batch.items()}).loss.backward()
    optimiser.step()
    tensors = list(model.parameters()) + [p.grad for p in model.parameters()]
    tensors += [value for state in optimiser.state.values() for value in state.values()]
    return sum(t.nbytes for t in tensors if isinstance(t, Tensor))


def measured_peak(model: PreTrainedModel, rows: Sequence[dict]) -> int:
    """Peak bytes of two steps over all rows at once, the model's own included."""
    quiet = {"batch_size": len(rows), "learning_rate": 1e-3, "progress": False}
    peak = profile.peak_memory(lambda: train.fit(model, rows, steps=2, **quiet))
    return profile.weight_bytes(model) + peak


def activations(student: str, rows: Sequence[dict], rank: int) -> int:
    """What a step over these rows adds beside them, from the course's ledger: bytes."""
    length = max(len(row["input_ids"]) for row in rows)
    labels = sum(label >= 0 for row in rows for label in row["labels"]) // len(rows)
    step = ledger.Step(
        len(rows), length, labels, torch.float32, "cpu", rank, teacher_signal="text"
    )
    parts = ledger.training(student, step).parts
    return parts["activations"] + parts["loss head"]


# ---------------------------------------------------------------- 5: the training


@question("Question 5, finetune", "Copy, adapt, `train.fit`, return both.")
def q5_finetune(
    finetune: Callable, base: PreTrainedModel, rows: Sequence[dict], kind: type
) -> None:
    """That the copy learns, through A and B alone, and the base stays as it was."""
    base = copy.deepcopy(base)  # whatever happens to it here, the lab goes on
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    requires = Counter(p.requires_grad for p in base.parameters())
    result = finetune(base, rows, 1e-2, 12)
    that(
        isinstance(result, tuple) and len(result) == 2,
        "return two things: the trained model and the list of losses",
    )
    model, losses = result
    same = dict(base.named_parameters())
    that(
        same.keys() == before.keys()
        and not any(isinstance(m, kind) for m in base.modules()),
        "the student that was handed in is adapted now: work on a copy.deepcopy of it",
    )
    that(
        all(torch.equal(before[name], p) for name, p in same.items())
        and requires == Counter(p.requires_grad for p in base.parameters()),
        "the student that was handed in has changed: work on a copy.deepcopy of it",
    )
    inner = [m for m in model.modules() if isinstance(m, kind)]
    that(inner, "the model that came back has no update: was it adapted before `fit`?")
    frozen = {n.replace(".base.", "."): p for n, p in model.named_parameters()}
    moved = [
        n for n, p in before.items() if n in frozen and not torch.equal(p, frozen[n])
    ]
    that(not moved, f"frozen weights have moved, such as {moved[0] if moved else ''}")
    that(
        any(m.B.any() for m in inner),
        "every B is still zero: was another model trained than the one returned?",
    )
    that(
        isinstance(losses, Sequence) and len(losses) == 12,
        "the losses should be one number a step: `train.fit` returns them as `.loss`",
    )
    some = [rows[i] for i in range(32)]
    that(
        heldout_loss(model, some) < 0.9 * heldout_loss(base, some),
        "the loss does not fall in 12 steps: does `learning_rate` reach `fit`?",
    )


@question("Question 5, rate", "Set RATE to the rate whose loss ends lowest.")
def q5_rate(rate: float, ends: Mapping[float, float]) -> None:
    """RATE against the losses that the learner's own runs ended with."""
    that(
        rate in ends,
        f"RATE is {rate}: choose one of those that were tried, {list(ends)}",
    )
    best = min(ends, key=ends.get)
    if rate != best and ends[rate] > 1.1 * ends[best]:
        word = (
            "too small: few numbers are trained, from zero, so each must move further "
            "than in full fine-tuning"
            if rate < best
            else "too large: the loss jumps instead of falling"
        )
        raise Mistake(f"a rate of {rate:g} ends at a loss of {ends[rate]:.2f}, {word}")


@question("Question 5, trained", "Train with RATE, and look at rows kept back.")
def q5_trained(
    model: PreTrainedModel, base: PreTrainedModel, rows: Sequence[dict]
) -> None:
    """The loss on rows that were not trained on."""
    old, new = (heldout_loss(m, rows) for m in (base, model))
    that(
        new < 0.6 * old,
        f"on rows that were kept back the loss is {new:.2f}, the base's is {old:.2f}: "
        "trained for too few steps, at another rate, or on the wrong rows?",
    )


@torch.no_grad()
def heldout_loss(model: PreTrainedModel, rows: Sequence[dict]) -> float:
    """Cross-entropy in nats per answer token, of all rows in one batch."""
    batch = collate(rows, pad_token_id=0)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    logits = train.kept_logits(model, batch)
    labels = batch["labels"][:, 1:]
    return nn.functional.cross_entropy(logits, labels[labels != -100]).item()
