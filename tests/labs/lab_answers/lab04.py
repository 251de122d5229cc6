"""Answers to lab 04, LoRA."""

from . import Right, Wrong

LAYER = """
class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base = base.requires_grad_({trains})
        self.A = {A}
        self.B = {B}
        self.scale = {scale}

    def forward(self, x):
        return {forward}
"""
GOOD_LAYER = {
    "trains": "False",
    "A": "nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)",
    "B": "nn.Parameter(torch.zeros(base.out_features, rank))",
    "scale": "alpha / rank",
    "forward": "self.base(x) + self.scale * (x @ self.A.T @ self.B.T)",
}
ADAPT = """
def adapt(model, rank, alpha):
    {freeze}
    head = model.get_output_embeddings()
    for name, module in {walk}:
        if {chosen}:
            model.set_submodule(name, LoRALinear(module, {rank}, alpha))
    return model
"""
GOOD_ADAPT = {
    "freeze": "model.requires_grad_(False)",
    "walk": "list(model.named_modules())",
    "chosen": "isinstance(module, nn.Linear) and module is not head",
    "rank": "rank",
}
COUNT = """
def adapter_parameters(model, rank):
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, nn.Linear){not_head}]
    return sum({each} for m in linear)
"""
GOOD_COUNT = {
    "not_head": " and m is not head",
    "each": "rank * (m.in_features + m.out_features)",
}
SHARE = """
def trained_share(model):
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() for p in model.parameters())
    return {share}
"""
GOOD_SHARE = {"share": "trained / everything"}
MERGE = """
def merge(layer):
    {refuse}
    {copied}
    with torch.no_grad():
        merged.weight += {update}
    return merged


def unmerge(linear, layer):
    plain = copy.deepcopy(linear)
    with torch.no_grad():
        plain.weight {away} layer.B @ layer.A
    return plain
"""
GOOD_MERGE = {
    "refuse": "if models.in_4_bits(layer.base):\n"
    "        raise ValueError('merge into the base in full precision')",
    "copied": "merged = copy.deepcopy(layer.base)",
    "update": "layer.scale * layer.B @ layer.A",
    "away": "-= layer.scale *",
}
MEMORY = """
def training_bytes(frozen, trained, bits):
    return {{
        "weights": {weights},
        "adapters": {adapters},
        "gradients": {gradients},
        "optimiser": {optimiser},
    }}


def held_bytes(model):
    sizes = [(p.numel(), p.requires_grad, p.element_size()) for p in {numbers}]
    trained = sum(n for n, grad, _ in sizes if grad)
    frozen = sum(n for n, grad, _ in sizes if not grad)
    bits = {bits}
    return {held}
"""
GOOD_MEMORY = {
    "weights": "frozen * bits / 8",
    "adapters": "4 * trained",
    "gradients": "4 * trained",
    "optimiser": "8 * trained",
    "numbers": "model.parameters()",
    "bits": "8 * min(size for _, grad, size in sizes if not grad)",
    "held": "sum(training_bytes(frozen, trained, bits).values())",
}
FINETUNE = """
def finetune(base, rows, learning_rate, steps):
    torch.manual_seed(0)
    model = {model}
    history = train.fit(
        {trained}, rows, steps={steps}, learning_rate={rate}, batch_size=16,
        progress=False,
    )
    return {returned}
"""
GOOD_FINETUNE = {
    "model": "adapt(copy.deepcopy(base), 8, 16)",
    "trained": "model",
    "steps": "steps",
    "rate": "learning_rate",
    "returned": "model, history.loss",
}


def layer(name: str, says: str, check: str = "start", **parts: str) -> Wrong:
    code = LAYER.format(**GOOD_LAYER | parts)
    return Wrong(name, "q1_layer", code, f"q1_{check}", says)


def model_code(**parts: str) -> str:
    texts = ((ADAPT, GOOD_ADAPT), (COUNT, GOOD_COUNT), (SHARE, GOOD_SHARE))
    return "".join(text.format(**good | parts) for text, good in texts)


def model(name: str, check: str, says: str, **parts: str) -> Wrong:
    return Wrong(name, "q2_model", model_code(**parts), f"q2_{check}", says)


def merge(name: str, check: str, says: str, **parts: str) -> Wrong:
    code = MERGE.format(**GOOD_MERGE | parts)
    return Wrong(name, "q3_merge", code, f"q3_{check}", says)


def memory(name: str, says: str, check: str = "bytes", **parts: str) -> Wrong:
    code = MEMORY.format(**GOOD_MEMORY | parts)
    return Wrong(name, "q4_memory", code, f"q4_{check}", says)


def finetune(name: str, says: str, **parts: str) -> Wrong:
    code = FINETUNE.format(**GOOD_FINETUNE | parts)
    return Wrong(name, "q5_finetune", code, "q5_trained", says)


ZERO_A = "nn.Parameter(torch.zeros(rank, base.in_features))"
RANDOM_B = "nn.Parameter(torch.randn(base.out_features, rank))"
UPDATE = "x @ self.A.T @ self.B.T"
SUM = "rank * (m.in_features + m.out_features)"

WRONG = [
    layer("both matrices zero", "A and B are both zero", A=ZERO_A),
    layer("B random at the start", "must answer as its base", B=RANDOM_B),
    layer("base trained", "the base can still be trained", trains="True"),
    layer("B no parameter", "B is no nn.Parameter", B=RANDOM_B[13:-1]),
    layer(
        "A transposed",
        "A is (24, 4), for rank 4",
        A="nn.Parameter(torch.randn(base.in_features, rank))",
        forward="self.base(x) + self.scale * (x @ self.A @ self.B.T)",
    ),
    layer(
        "rows of A all equal",
        "equal rows",
        A="nn.Parameter(torch.ones(rank, base.in_features))",
    ),
    layer(
        "update detached",
        "no gradient reaches A or B",
        forward=f"self.base(x) + self.scale * ({UPDATE}).detach() + 0 * self.A.sum()",
    ),
    layer("scale is alpha", "counts alpha times", "forward", scale="alpha"),
    layer("scale is rank / alpha", "rank / alpha", "forward", scale="rank / alpha"),
    layer("no scale", "the update is not scaled", "forward", scale="1"),
    layer(
        "bias dropped",
        "the bias of the base is lost",
        "start",
        forward=f"x @ self.base.weight.T + self.scale * ({UPDATE})",
    )._replace(says="the bias still there"),
    layer(
        "the update's sign",
        "taken away instead of added",
        "forward",
        forward=f"self.base(x) - self.scale * ({UPDATE})",
    ),
    model(
        "output head adapted",
        "adapt",
        "the output head is adapted too",
        chosen="isinstance(module, nn.Linear)",
    ),
    model(
        "attention alone",
        "adapt",
        "linear layers got no update",
        chosen="name.endswith('_proj') and 'attn' in name",
    ),
    model(
        "an update inside an update",
        "adapt",
        "inside another update",
        walk="[(n, m) for n, m in model.named_modules() if isinstance(m, nn.Linear)]"
        " + [(n + '.base', m) for n, m in model.named_modules()]",
    ),
    model(
        "embeddings and norms still trained",
        "adapt",
        "more than A and B is trained",
        freeze="pass",
    ),
    model("another rank", "adapt", "the rank of the updates", rank="2 * rank"),
    model("head counted", "count", "the output head is counted", not_head=""),
    model(
        "in times out",
        "count",
        "sizes are added",
        each="rank * m.in_features * m.out_features",
    ),
    model(
        "square matrices",
        "count",
        "as if every matrix were square",
        each="2 * rank * m.in_features",
    ),
    model("A alone", "count", "that is A alone", each="rank * m.in_features"),
    model(
        "tied matrix counted twice",
        "share",
        "counted twice",
        share="trained / sum(v.numel() for v in model.state_dict().values())",
    ),
    model(
        "adapters not among all numbers",
        "share",
        "trained / frozen",
        share="trained / (everything - trained)",
    ),
    merge(
        "merged twice",
        "again",
        "the update counts twice",
        copied="merged = layer.base",
    ),
    merge(
        "merged without scale",
        "merged",
        "merged without its scale",
        update="layer.B @ layer.A",
    ),
    merge(
        "bias lost in the merge",
        "merged",
        "bias of the base is lost",
        copied="merged = nn.Linear(*layer.base.weight.shape[::-1], bias=False)\n"
        "    merged.weight.data.copy_(layer.base.weight)",
    ),
    merge("taken out without scale", "again", "without its scale", away="-="),
    merge("put in once more", "again", "added once more", away="+= layer.scale *"),
    merge("four bits not noticed", "four_bits", "tells nobody what", refuse="pass"),
    merge(
        "everything refused",
        "merged",
        "ValueError",
        refuse="raise ValueError('never merge')",
    ),
    memory("bits for bytes", "`weights` is in bits", weights="frozen * bits"),
    memory(
        "Adam for frozen weights",
        "Adam's moments for frozen",
        optimiser="8 * (frozen + trained)",
    ),
    memory("one moment", "two moments", optimiser="4 * trained"),
    memory(
        "gradients of frozen weights",
        "`gradients` are counted for frozen",
        gradients="4 * (frozen + trained)",
    ),
    memory("frozen base forgotten", "the frozen base is forgotten", weights="0"),
    memory(
        "adapters in the bits of the base",
        "A and B are float32",
        adapters="trained * bits / 8",
    ),
    memory(
        "tied matrix held twice",
        "counted twice",
        "model",
        numbers="(p for _, p in model.named_parameters(remove_duplicate=False))",
    ),
    memory(
        "all counted as trained",
        "counted as trained",
        "model",
        held="sum(training_bytes(0, frozen + trained, bits).values())",
    ),
    memory("float32 for granted", "bfloat16 here", "model", bits="32"),
    finetune("the base itself trained", "is adapted now", model="adapt(base, 8, 16)"),
    finetune(
        "never adapted",
        "has no update",
        model="copy.deepcopy(base).requires_grad_(True)",
    ),
    finetune(
        "the losses of one epoch",
        "one number a step",
        returned="model, history.loss[:5]",
    ),
    finetune("rate ignored", "does not fall", rate="1e-9"),
    Wrong(
        "a rate too small", "q5_rate_chosen", "RATE = 1e-4", "q5_rate", "too small: few"
    ),
    Wrong(
        "a rate too large", "q5_rate_chosen", "RATE = 1e-1", "q5_rate", "too large: the"
    ),
]

RIGHT = [
    Right(
        "two linear layers as A and B",
        "q1_layer",
        """
class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.alpha, self.rank = base, alpha, rank
        for parameter in base.parameters():
            parameter.requires_grad = False
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = alpha / rank

    A = property(lambda self: self.down.weight)
    B = property(lambda self: self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x)) * self.alpha / self.rank
""",
    ),
    Right(
        "the sum of the weights in forward, A uniform as in peft",
        "q1_layer",
        """
import math
import torch.nn.functional as F

class LoRALinear(nn.Module):
    def __init__(self, base, rank, alpha):
        super().__init__()
        self.base, self.scale = base, alpha / rank
        base.weight.requires_grad = False
        if base.bias is not None:
            base.bias.requires_grad = False
        self.A = nn.Parameter(torch.empty(rank, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward(self, x):
        weight = self.base.weight + self.scale * self.B.matmul(self.A)
        return F.linear(x, weight, self.base.bias)
""",
    ),
    Right(
        "a recursive walk, counts over shapes",
        "q2_model",
        """
def exchange(module, head, rank, alpha):
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            if child is not head:
                setattr(module, name, LoRALinear(child, rank, alpha))
        else:
            exchange(child, head, rank, alpha)


def adapt(model, rank, alpha):
    for parameter in model.parameters():
        parameter.requires_grad = False
    exchange(model, model.get_output_embeddings(), rank, alpha)
    return model


def adapter_parameters(model, rank):
    head, total = model.get_output_embeddings(), 0
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head:
            total += rank * sum(module.weight.shape)
    return float(total)


def trained_share(model):
    seen, trained, everything = set(), 0, 0
    for _, p in model.named_parameters(remove_duplicate=False):
        if id(p) not in seen:
            seen.add(id(p))
            everything += p.numel()
            trained += p.numel() * p.requires_grad
    return torch.tensor(trained / everything)
""",
    ),
    Right(
        "a new linear layer, column by column",
        "q3_merge",
        """
def plain_layer(weight, bias):
    out_features, in_features = weight.shape
    linear = nn.Linear(in_features, out_features, bias=bias is not None)
    linear.weight.data = weight.detach().clone()
    if bias is not None:
        linear.bias.data = bias.detach().clone()
    return linear


def merge(layer):
    if type(layer.base) is not nn.Linear:
        raise ValueError("this base is quantised: merge into one in full precision")
    weight = layer.base.weight.detach().clone()
    for row in range(layer.A.shape[0]):
        weight += layer.scale * torch.outer(layer.B[:, row], layer.A[row]).detach()
    return plain_layer(weight, layer.base.bias)


def unmerge(linear, layer):
    update = torch.einsum("or,ri->oi", layer.B, layer.A) * layer.scale
    return plain_layer(linear.weight - update, linear.bias)
""",
    ),
    Right(
        "sums over named parts, whole bytes",
        "q4_memory",
        """
def training_bytes(frozen, trained, bits):
    adapters = torch.finfo(torch.float32).bits // 8 * trained
    parts = dict(weights=int(frozen * bits) // 8, adapters=adapters)
    return parts | dict(gradients=adapters, optimiser=adapters + adapters)


def held_bytes(model):
    held = 0
    for p in model.parameters():
        bits = 8 * p.element_size()
        sizes = (0, p.numel()) if p.requires_grad else (p.numel(), 0)
        held += sum(training_bytes(*sizes, bits).values())
    return held
""",
    ),
]
