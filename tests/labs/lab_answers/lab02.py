"""Answers to lab 02, soft targets."""

from . import Right, Wrong

SOFTEN = "def soften(logits, temperature):\n    "
KL = "def forward_kl(student_logits, teacher_logits, temperature):\n    "
LOSS = """
def soft_target_loss(
    student_logits, labels, teacher_logits, soft_weight=0.5, temperature=2.0
):
    w, T = soft_weight, temperature
    targets, mask = shift_and_mask(labels)
    s, t, y = student_logits[:, :-1][mask], teacher_logits[:, :-1][mask], targets[mask]
    t, n = t.detach(), max(1, len(y))
    hard, soft = F.cross_entropy(s, y, reduction="sum"), forward_kl(s, t, T).sum()
    """
FORWARD = """
def forward_gradient(student_logits, teacher_logits, temperature):
    q, p = (soften(z, temperature).exp() for z in (student_logits, teacher_logits))
    """
REVERSE = """
def reverse_gradient(student_logits, teacher_logits, temperature):
    T = temperature
    log_q, log_p = (soften(z, T) for z in (student_logits, teacher_logits))
    q, p, g = log_q.exp(), log_p.exp(), log_q - log_p
    """
SIZES = """
def gradient_sizes(student_logits, teacher_logits, temperatures, power):
    pulls = [forward_gradient(student_logits, teacher_logits, T) for T in temperatures]
    pairs = list(zip(temperatures, pulls))
    """


def soften(name: str, body: str, says: str, check: str = "values") -> Wrong:
    return Wrong(name, "q1_soften", SOFTEN + body, f"q1_{check}", says)


def kl(name: str, body: str, says: str, check: str = "values") -> Wrong:
    return Wrong(name, "q2_forward_kl", KL + body, f"q2_{check}", says)


def loss(name: str, body: str, says: str, check: str = "parts") -> Wrong:
    return Wrong(name, "q3_loss", LOSS + body, f"q3_{check}", says)


def forward(name: str, body: str, says: str) -> Wrong:
    return Wrong(name, "q4a_forward", FORWARD + body, "q4a_check", says)


def reverse(name: str, body: str, says: str) -> Wrong:
    return Wrong(name, "q4b_reverse", REVERSE + body, "q4b_check", says)


def sizes(name: str, body: str, says: str) -> Wrong:
    return Wrong(name, "q5_sizes", SIZES + body, "q5_check", says)


WRONG = [
    soften(
        "probabilities in place of logarithms",
        "return (logits / temperature).softmax(-1)",
        "these are probabilities",
    ),
    soften(
        "logits times temperature",
        "return (logits * temperature).log_softmax(-1)",
        "it must divide them",
    ),
    soften(
        "softmax over the tokens",
        "return (logits / temperature).log_softmax(0)",
        "dimension 0",
    ),
    soften(
        "bits",
        "return (logits / temperature).log_softmax(-1) / torch.tensor(2.0).log()",
        "base-2 logarithms",
    ),
    soften(
        "temperature after the logarithm",
        "return logits.float().log_softmax(-1) / temperature",
        "no longer sum to 1",
    ),
    soften(
        "exp of large logits",
        "z = (logits.float() / temperature).exp()\n"
        "    return (z / z.sum(-1, keepdim=True)).log()",
        "exp of a large logit is infinite",
        "extremes",
    ),
    soften(
        "logarithm of a softmax",
        "return (logits.float() / temperature).softmax(-1).log()",
        "a probability became 0",
        "extremes",
    ),
    soften(
        "logarithm of a softmax and an epsilon",
        "return ((logits.float() / temperature).softmax(-1) + 1e-9).log()",
        "1e-09 is added",
        "extremes",
    ),
    soften(
        "one maximum for all rows",
        "z = logits.float() / temperature\n    z = (z - z.max()).exp()\n"
        "    return (z / z.sum(-1, keepdim=True)).log()",
        "Each row needs its own",
        "extremes",
    ),
    soften(
        "half precision inside",
        "return (logits / temperature).log_softmax(-1)",
        "widened to float32",
        "extremes",
    ),
    kl(
        "swapped direction",
        "q, p = (soften(z, temperature) for z in (student_logits, teacher_logits))\n"
        "    return (q.exp() * (q - p)).sum(-1)",
        "this is KL(q || p)",
    ),
    kl(
        "kl_div with the teacher first",
        "q, p = (soften(z, temperature) for z in (student_logits, teacher_logits))\n"
        "    return F.kl_div(p, q, log_target=True, reduction='none').sum(-1)",
        "this is KL(q || p)",
    ),
    kl(
        "temperature on the teacher only",
        "q, p = soften(student_logits, 1), soften(teacher_logits, temperature)\n"
        "    return (p.exp() * (p - q)).sum(-1)",
        "only the teacher is softened",
    ),
    kl(
        "softmax twice",
        "q, p = (soften(z, temperature).exp() for z in (student_logits, "
        "teacher_logits))\n"
        "    return losses.token_divergence(q, p)",
        "a softmax of a softmax",
    ),
    kl(
        "cross-entropy in place of KL",
        "q, p = (soften(z, temperature) for z in (student_logits, teacher_logits))\n"
        "    return -(p.exp() * q).sum(-1)",
        "this is the cross-entropy",
    ),
    kl(
        "mean over the words",
        "q, p = (soften(z, temperature) for z in (student_logits, teacher_logits))\n"
        "    return (p.exp() * (p - q)).mean(-1)",
        "the words are averaged",
    ),
    kl(
        "batchmean",
        "q, p = (soften(z, temperature) for z in (student_logits, teacher_logits))\n"
        "    q, p = q.flatten(0, -2), p.flatten(0, -2)\n"
        "    return F.kl_div(q, p, log_target=True, reduction='batchmean')",
        "all tokens are averaged into one number",
    ),
    kl(
        "T² in the divergence",
        "kl = losses.token_divergence\n"
        "    z = student_logits, teacher_logits\n"
        "    return temperature**2 * kl(*z, temperature=temperature)",
        "T² is in here already",
    ),
    kl(
        "bits in the divergence",
        "q, p = (soften(z, temperature) for z in (student_logits, teacher_logits))\n"
        "    return (p.exp() * (p - q)).sum(-1) * 1.442695",
        "base-2 logarithms",
    ),
    kl(
        "logarithm of a ratio",
        "q, p = (soften(z, temperature).exp() for z in (student_logits, "
        "teacher_logits))\n"
        "    return (p * (p / q).log()).sum(-1)",
        "0 * -inf",
        "agreement",
    ),
    loss("no T²", "return ((1 - w) * hard + w * soft) / n", "T² is missing"),
    loss(
        "T in place of T²",
        "return ((1 - w) * hard + w * T * soft) / n",
        "multiplied by T; it needs T²",
    ),
    loss(
        "T² on the hard part too",
        "return T**2 * ((1 - w) * hard + w * soft) / n",
        "T² multiplies the hard part",
    ),
    loss(
        "hard part softened",
        "hard = F.cross_entropy(s / T, y, reduction='sum')\n"
        "    return ((1 - w) * hard + w * T**2 * soft) / n",
        "labels are learnt at temperature 1",
    ),
    loss(
        "weights swapped",
        "return (w * hard + (1 - w) * T**2 * soft) / n",
        "the two weights are swapped",
    ),
    loss(
        "hard part at full weight",
        "return (hard + w * T**2 * soft) / n",
        "it needs 1 - soft_weight",
    ),
    loss(
        "divergence in the other direction",
        "return ((1 - w) * hard + w * T**2 * forward_kl(t, s, T).sum()) / n",
        "the other direction",
    ),
    loss(
        "logits not shifted",
        "s, t = student_logits[:, 1:][mask], teacher_logits[:, 1:][mask].detach()\n"
        "    hard = F.cross_entropy(s, y, reduction='sum')\n"
        "    return ((1 - w) * hard + w * T**2 * forward_kl(s, t, T).sum()) / n",
        "the logits are not shifted",
    ),
    loss(
        "sum in place of mean",
        "return (1 - w) * hard + w * T**2 * soft",
        "the tokens are summed",
    ),
    loss(
        "soft part by rows",
        "return (1 - w) * hard / n + w * T**2 * soft / len(labels)",
        "divided by the rows of the batch",
    ),
    loss(
        "soft part over prompt and padding",
        "soft = forward_kl(student_logits, teacher_logits.detach(), T)[:, :-1]\n"
        "    return (1 - w) * hard / n + w * T**2 * soft.mean()",
        "counts prompt and padding",
        "mask",
    ),
    loss(
        "mean over prompt and padding",
        "return ((1 - w) * hard + w * T**2 * soft) / mask.numel()",
        "divide by the number of kept tokens",
        "mask",
    ),
    loss(
        "mean of the rows' means",
        "z, y = student_logits[:, :-1], targets.clamp(min=0)\n"
        "    kl = forward_kl(z, teacher_logits[:, :-1].detach(), T)\n"
        "    ce = F.cross_entropy(z.transpose(1, 2), y, reduction='none')\n"
        "    each = ((1 - w) * ce + w * T**2 * kl) * mask\n"
        "    return (each.sum(1) / mask.sum(1)).mean()",
        "each row has its mean",
        "mask",
    ),
    loss(
        "nothing kept gives NaN",
        "return ((1 - w) * hard + w * T**2 * soft) / mask.sum()",
        "a division by 0",
        "mask",
    ),
    loss(
        "teacher not detached",
        "t = teacher_logits[:, :-1][mask]\n"
        "    return ((1 - w) * hard + w * T**2 * forward_kl(s, t, T).sum()) / n",
        "a gradient reaches the teacher",
        "teacher",
    ),
    loss(
        "student detached in the soft part",
        "soft = forward_kl(s.detach(), t, T).sum()\n"
        "    return ((1 - w) * hard + w * T**2 * soft) / n",
        "part of it is cut off from the student",
        "teacher",
    ),
    loss(
        "a float",
        "return (((1 - w) * hard + w * T**2 * soft) / n).item()",
        "no gradient leaves your loss",
        "teacher",
    ),
    forward("the other sign", "return (p - q) / temperature", "the sign is wrong"),
    forward("no 1/T", "return q - p", "1/T is missing"),
    forward(
        "T² in the gradient",
        "return (q - p) * temperature",
        "T² belongs into the loss",
    ),
    forward(
        "not softened",
        "q, p = student_logits.softmax(-1), teacher_logits.softmax(-1)\n"
        "    return (q - p) / temperature",
        "q and p are not softened",
    ),
    forward(
        "pull of a label",
        "p = F.one_hot(p.argmax(-1), p.shape[-1])\n    return (q - p) / temperature",
        "the pull of a label",
    ),
    forward(
        "mean over the rows",
        "return (q - p) / temperature / len(q)",
        "each row has its own",
    ),
    forward(
        "autograd",
        "z = student_logits.clone().requires_grad_()\n"
        "    forward_kl(z, teacher_logits, temperature).sum().backward()\n"
        "    return z.grad",
        "autograd is off here",
    ),
    reverse(
        "no KL subtracted",
        "return q * g / T",
        "is not subtracted",
    ),
    reverse(
        "1 of the product rule",
        "return q * (g + 1) / T",
        "the 1 of the product rule",
    ),
    reverse(
        "no q in front",
        "return (g - (q * g).sum(-1, keepdim=True)) / T",
        "the weight q in front is missing",
    ),
    reverse(
        "forward gradient again", "return (q - p) / T", "this is the gradient of KL(p"
    ),
    reverse(
        "reverse with the other sign",
        "return q * ((q * g).sum(-1, keepdim=True) - g) / T",
        "the sign is wrong",
    ),
    sizes(
        "power without effect",
        "return [x.norm(dim=-1).mean() for _, x in pairs]",
        "`power` has no effect",
    ),
    sizes(
        "length of the whole table",
        "return [T**power * x.norm() for T, x in pairs]",
        "the length of the whole table",
    ),
    sizes(
        "rows averaged first",
        "return [T**power * x.mean(0).norm() for T, x in pairs]",
        "cancel",
    ),
    sizes(
        "squared lengths",
        "return [T**power * x.square().sum(-1).mean() for T, x in pairs]",
        "squared lengths",
    ),
]

RIGHT = [
    Right(
        "log_softmax in double precision",
        "q1_soften",
        SOFTEN + "return (logits.double() / temperature).log_softmax(dim=-1)",
    ),
    Right(
        "row by row",
        "q1_soften",
        """
def soften(logits, temperature):
    answer = torch.zeros(logits.shape)
    for place in range(logits[..., 0].numel()):
        row = logits.reshape(-1, logits.shape[-1])[place].float() / temperature
        total = torch.exp(row - row.max()).sum()
        answer.view(-1, len(row))[place] = row - row.max() - torch.log(total)
    return answer
""",
    ),
    Right(
        "PyTorch's kl_div",
        "q2_forward_kl",
        KL + "q, p = (z.float() / temperature for z in (student_logits, "
        "teacher_logits))\n"
        "    log_q, log_p = F.log_softmax(q, -1), F.log_softmax(p, -1)\n"
        "    return F.kl_div(log_q, log_p, reduction='none', log_target=True).sum(-1)",
    ),
    Right(
        "cross-entropy minus entropy",
        "q2_forward_kl",
        KL + "log_q, log_p = soften(student_logits, temperature), "
        "soften(teacher_logits, temperature)\n"
        "    p = log_p.exp()\n"
        "    return (p * log_p).sum(-1) - (p * log_q).sum(-1)",
    ),
    Right(
        "token by token in loops",
        "q3_loss",
        """
def soft_target_loss(
    student_logits, labels, teacher_logits, soft_weight=0.5, temperature=2.0
):
    total, count = student_logits.sum() * 0, 0
    for row in range(labels.shape[0]):
        for at in range(1, labels.shape[1]):
            if labels[row, at] == -100:
                continue
            z, z_t = student_logits[row, at - 1], teacher_logits[row, at - 1].detach()
            hard = -soften(z, 1.0)[labels[row, at]]
            soft = temperature**2 * forward_kl(z, z_t, temperature)
            total = total + (1 - soft_weight) * hard + soft_weight * soft
            count += 1
    return total / count if count else total
""",
    ),
    Right(
        "masked by multiplication",
        "q3_loss",
        """
def soft_target_loss(
    student_logits, labels, teacher_logits, soft_weight=0.5, temperature=2.0
):
    targets, mask = shift_and_mask(labels)
    z, z_t = student_logits[:, :-1], teacher_logits[:, :-1].detach()
    log_q = soften(z, 1.0)
    hard = -log_q.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    soft = temperature**2 * forward_kl(z, z_t, temperature)
    each = (1 - soft_weight) * hard + soft_weight * soft
    return (each * mask).sum() / mask.sum().clamp(min=1)
""",
    ),
    Right(
        "cross-entropy that ignores -100",
        "q3_loss",
        """
def soft_target_loss(
    student_logits, labels, teacher_logits, soft_weight=0.5, temperature=2.0
):
    targets = labels[:, 1:]
    kept = targets != -100
    if not kept.any():
        return 0 * student_logits.sum()
    z, z_t = student_logits[:, :-1], teacher_logits[:, :-1].detach()
    hard = F.cross_entropy(z.flatten(0, 1), targets.flatten(), ignore_index=-100)
    soft = forward_kl(z[kept], z_t[kept], temperature).mean()
    return hard.lerp(temperature**2 * soft, soft_weight)
""",
    ),
    Right(
        "row by row, from unnormalised weights",
        "q4a_forward",
        """
def forward_gradient(student_logits, teacher_logits, temperature):
    rows = []
    for z, z_t in zip(student_logits / temperature, teacher_logits / temperature):
        a, b = torch.exp(z - z.max()), torch.exp(z_t - z_t.max())
        rows.append((a * b.sum() - b * a.sum()) / (a.sum() * b.sum() * temperature))
    return torch.stack(rows)
""",
    ),
    Right(
        "the chain rule through q",
        "q4b_reverse",
        """
def reverse_gradient(student_logits, teacher_logits, temperature):
    log_q = soften(student_logits.double(), temperature)
    of_q = log_q - soften(teacher_logits.double(), temperature) + 1  # d KL / d q
    q = log_q.exp()
    return (q * of_q - q * (q * of_q).sum(-1, keepdim=True)) / temperature
""",
    ),
    Right(
        "the factor inside autograd",
        "q5_sizes",
        """
def gradient_sizes(student_logits, teacher_logits, temperatures, power):
    sizes = []
    for T in temperatures:
        z = student_logits.clone().requires_grad_()
        (T**power * forward_kl(z, teacher_logits, T)).sum().backward()
        sizes.append(torch.linalg.vector_norm(z.grad, dim=1).mean())
    return torch.stack(sizes)
""",
    ),
]
