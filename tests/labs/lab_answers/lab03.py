"""Answers to lab 03, distil a language model."""

from . import Right, Wrong

MASK = """
def targets_and_mask(input_ids, attention_mask, prompt_lengths, pad_token_id):
    places = torch.arange(input_ids.shape[1])
    real, answer = attention_mask.bool(), places >= prompt_lengths[:, None]
    """
STEP = """
def step_losses(micro_batches):
    sums = [losses[mask].sum() for losses, mask in micro_batches]
    counts = [mask.sum() for _, mask in micro_batches]
    """
PAIR = "def two_students(teach, steps, seed):\n    "
CUT = """
def cut(teacher_logits, k, temperature):
    z = teacher_logits.float() / temperature
    log_p = z.log_softmax(-1)
    logprobs, ids = log_p.topk(k)
    tail = log_p.scatter(-1, ids, -torch.inf).logsumexp(-1)
    """
BYTES = "def cache_bytes(tokens, vocab, k):\n    "
BUCKET = """
def bucket_kl(student_logits, token_ids, logprobs, log_tail, temperature):
    log_q = (student_logits.float() / temperature).log_softmax(-1)
    others = log_q.scatter(-1, token_ids, -torch.inf).logsumexp(-1, keepdim=True)
    kept_q = log_q.gather(-1, token_ids)
    log_q = torch.cat([kept_q, others], dim=-1)
    log_p = torch.cat([logprobs, log_tail[:, None]], dim=-1).clamp(min=-1e4)
    """


def mask(name: str, body: str, says: str, check: str = "mask") -> Wrong:
    return Wrong(name, "q1_targets_and_mask", MASK + body, f"q1_{check}", says)


def step(name: str, body: str, says: str, check: str = "shares") -> Wrong:
    return Wrong(name, "q2_step_losses", STEP + body, f"q2_{check}", says)


def pair(name: str, text: str, logits: str, says: str) -> Wrong:
    body = f'return {{"text": teach({text}), "logits": teach({logits})}}'
    return Wrong(name, "q3_two_students", PAIR + body, "q3_fair", says)


def cut(name: str, body: str, says: str, check: str = "kept") -> Wrong:
    return Wrong(name, "q4_cut", CUT + body, f"q4_{check}", says)


def size(name: str, body: str, says: str) -> Wrong:
    return Wrong(name, "q4_bytes", BYTES + body, "q4_bytes_check", says)


def bucket(name: str, body: str, says: str, check: str = "value") -> Wrong:
    return Wrong(name, "q5_bucket_kl", BUCKET + body, f"q5_{check}", says)


SAME = 'rows="text", steps=steps, seed=seed'
SOFT = "logits=True, soft_weight=1.0, temperature=1.0"

WRONG = [
    mask(
        "targets not shifted",
        "return input_ids[:, :-1], (answer & real)[:, 1:]",
        "its own token as target",
        "targets",
    ),
    mask(
        "shifted the wrong way",
        "return input_ids.roll(1, 1)[:, :-1], (answer & real)[:, 1:]",
        "shifted the wrong way",
        "targets",
    ),
    mask(
        "nothing shifted",
        "return input_ids, answer & real",
        "nothing is shifted",
        "targets",
    ),
    mask(
        "mask before shift",
        "return input_ids[:, 1:], (answer & real)[:, :-1]",
        "the mask is not shifted",
    ),
    mask(
        "one position too early",
        "early = places >= prompt_lengths[:, None] - 1\n"
        "    return input_ids[:, 1:], (early & real)[:, 1:]",
        "the mask is shifted twice",
    ),
    mask(
        "first token of the answer lost",
        "late = places > prompt_lengths[:, None]\n"
        "    return input_ids[:, 1:], (late & real)[:, 1:]",
        "the first token of each answer does not count",
    ),
    mask(
        "prompt in the loss",
        "return input_ids[:, 1:], real[:, 1:]",
        "the prompt counts",
    ),
    mask(
        "padding in the loss",
        "return input_ids[:, 1:], answer[:, 1:]",
        "padding counts",
    ),
    mask(
        "EOS dropped because pad == eos",
        "return input_ids[:, 1:], (answer & (input_ids != pad_token_id))[:, 1:]",
        "the end token does not count",
    ),
    mask(
        "prompt in the loss and EOS dropped",
        "return input_ids[:, 1:], (input_ids != pad_token_id)[:, 1:]",
        "the prompt counts, and the end token does not",
    ),
    step(
        "sum of means",
        "return [s / n for s, n in zip(sums, counts)]",
        "grows with the number of micro-batches",
    ),
    step(
        "mean of means",
        "return [s / n / len(sums) for s, n in zip(sums, counts)]",
        "a mean of means",
    ),
    step("only sums", "return sums", "not divided by their number"),
    step(
        "mean over padding",
        "n = sum(mask.numel() for _, mask in micro_batches)\n"
        "    return [s / n for s in sums]",
        "prompt and padding are counted in the division",
    ),
    step(
        "mean over rows",
        "n = sum(len(mask) for _, mask in micro_batches)\n"
        "    return [s / n for s in sums]",
        "the division is by rows",
    ),
    step(
        "mask forgotten in the sum",
        "return [losses.sum() / sum(counts) for losses, _ in micro_batches]",
        "prompt and padding are in the sum",
    ),
    step(
        "masked by multiplication",
        "return [(losses * mask).sum() / sum(counts).clamp(min=1)\n"
        "            for losses, mask in micro_batches]",
        "0 times infinity is NaN",
        "edges",
    ),
    step(
        "nothing kept in the step",
        "return [s / sum(counts) for s in sums]",
        "is it a division by 0",
        "edges",
    ),
    step(
        "shares as floats",
        "return [s.item() / max(1, int(sum(counts))) for s in sums]",
        "no gradient leaves a share",
        "edges",
    ),
    pair(
        "text from people",
        "rows='gold', steps=steps, seed=seed",
        f"{SAME}, {SOFT}",
        "both must read the teacher's text",
    ),
    pair(
        "more steps for logits",
        SAME,
        f"rows='text', steps=2 * steps, seed=seed, {SOFT}",
        "more steps win any comparison",
    ),
    pair(
        "another seed",
        SAME,
        f"rows='text', steps=steps, seed=seed + 1, {SOFT}",
        "another start",
    ),
    pair(
        "a mix in place of logits",
        SAME,
        f"{SAME}, logits=True, temperature=1.0",
        "a mix of both",
    ),
    pair(
        "default temperature",
        SAME,
        f"{SAME}, logits=True, soft_weight=1.0",
        "temperature is 2.0",
    ),
    pair("names swapped", f"{SAME}, {SOFT}", SAME, "are the names swapped"),
    cut(
        "renormalised",
        "return ids, logprobs.log_softmax(-1), tail",
        "they are renormalised",
    ),
    cut(
        "softmax of the top k",
        "kept, ids = z.topk(k)\n    return ids, kept.log_softmax(-1), tail",
        "they are renormalised",
    ),
    cut("logits kept", "return ids, z.topk(k).values, tail", "nobody can normalise"),
    cut("probabilities kept", "return ids, logprobs.exp(), tail", "probabilities"),
    cut(
        "not softened",
        "return ids, teacher_logits.log_softmax(-1).gather(-1, ids), tail",
        "the temperature has no effect",
    ),
    cut(
        "least likely words",
        "low, ids = log_p.topk(k, largest=False)\n    return ids, low, tail",
        "least",
    ),
    cut(
        "mass of the tail, no logarithm",
        "return ids, logprobs, tail.exp()",
        "its logarithm is asked for",
        "tail",
    ),
    cut(
        "tail from 1 - P",
        "return ids, logprobs, (1 - logprobs.exp().sum(-1)).log()",
        "1 - P is only rounding",
        "tail",
    ),
    cut(
        "mean of the tail",
        "n = torch.tensor(float(z.shape[-1] - k))\n"
        "    return ids, logprobs, tail - n.log()",
        "the mean of the others",
        "tail",
    ),
    cut(
        "tail not softened",
        "cold = teacher_logits.float().log_softmax(-1)\n"
        "    return ids, logprobs, cold.scatter(-1, ids, -torch.inf).logsumexp(-1)",
        "the tail is not softened",
        "tail",
    ),
    size("ids of int64", "return tokens * (k * (8 + 2) + 2)", "int64"),
    size(
        "no tail",
        "return tokens * k * ((2 if vocab <= 2**16 else 3) + 2)",
        "the tail of each token is missing",
    ),
    size("always 2 bytes", "return tokens * (k * 4 + 2)", "no more"),
    bucket(
        "truncate",
        "return (logprobs.exp() * (logprobs - kept_q)).sum(-1)",
        "truncate",
    ),
    bucket(
        "renormalise",
        "p, q = logprobs.log_softmax(-1), kept_q.log_softmax(-1)\n"
        "    return (p.exp() * (p - q)).sum(-1)",
        "renormalise",
    ),
    bucket(
        "reverse direction",
        "return (log_q.exp() * (log_q - log_p)).sum(-1)",
        "this is KL(q || p)",
    ),
    bucket(
        "student not softened",
        "return bucket_kl_cold(student_logits, token_ids, log_p)\n\n\n"
        "def bucket_kl_cold(z, ids, log_p):\n"
        "    log_q = z.log_softmax(-1)\n"
        "    others = log_q.scatter(-1, ids, -torch.inf).logsumexp(-1, keepdim=True)\n"
        "    log_q = torch.cat([log_q.gather(-1, ids), others], dim=-1)\n"
        "    return (log_p.exp() * (log_p - log_q)).sum(-1)",
        "the student is not softened",
    ),
    bucket(
        "T² inside",
        "return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(-1)",
        "T² is in here",
    ),
    bucket(
        "student's 1 - Q",
        "others = (1 - kept_q.exp().sum(-1, keepdim=True)).log()\n"
        "    log_q = torch.cat([kept_q, others], dim=-1)\n"
        "    return (log_p.exp() * (log_p - log_q)).sum(-1)",
        "Its 1 - Q is 0 or rounding",
        "extremes",
    ),
    bucket(
        "student's 1 - Q with an epsilon",
        "others = (1 - kept_q.exp().sum(-1, keepdim=True) + 1e-9).log()\n"
        "    log_q = torch.cat([kept_q, others], dim=-1)\n"
        "    return (log_p.exp() * (log_p - log_q)).sum(-1)",
        "Its 1 - Q is 0 or rounding",
        "extremes",
    ),
    bucket(
        "0 times -inf",
        "log_p = torch.cat([logprobs, log_tail[:, None]], dim=-1)\n"
        "    return (log_p.exp() * (log_p - log_q)).sum(-1)",
        "0 times -inf is NaN",
        "extremes",
    ),
]

RIGHT = [
    Right(
        "row by row",
        "q1_targets_and_mask",
        """
def targets_and_mask(input_ids, attention_mask, prompt_lengths, pad_token_id):
    mask = torch.zeros(input_ids.shape[0], input_ids.shape[1] - 1, dtype=torch.bool)
    for row in range(len(mask)):
        first, length = int(prompt_lengths[row]), int(attention_mask[row].sum())
        for position in range(first - 1, length - 1):
            mask[row, position] = True
    return input_ids[:, 1:].clone(), mask
""",
    ),
    Right(
        "by labels of -100",
        "q1_targets_and_mask",
        """
def targets_and_mask(input_ids, attention_mask, prompt_lengths, pad_token_id):
    labels = input_ids.masked_fill(attention_mask == 0, -100)
    for row, length in enumerate(prompt_lengths.tolist()):
        labels[row, :length] = -100
    return labels[:, 1:], (labels[:, 1:] != -100).int()
""",
    ),
    Right(
        "by helpers.losses",
        "q2_step_losses",
        """
def step_losses(micro_batches):
    kept = int(sum(mask.sum() for _, mask in micro_batches))
    return [losses_of(*micro, kept) for micro in micro_batches]


def losses_of(per_token, mask, kept):
    return losses.reduce_tokens(per_token, mask, num_items=kept)
""",
    ),
    Right(
        "where, then a weighted mean of means",
        "q2_step_losses",
        """
def step_losses(micro_batches):
    counts = torch.stack([mask.sum() for _, mask in micro_batches]).float()
    weights = counts / counts.sum().clamp(min=1)
    means = [
        torch.where(mask, losses, 0.0).sum() / count.clamp(min=1)
        for (losses, mask), count in zip(micro_batches, counts)
    ]
    return [weight * mean for weight, mean in zip(weights, means)]
""",
    ),
    Right(
        "positional arguments, logits first",
        "q3_two_students",
        """
def two_students(teach, steps, seed):
    students = {"logits": teach("text", True, 1.0, 1.0, steps, seed)}
    students["text"] = teach("text", steps=steps, seed=seed)
    return students
""",
    ),
    Right(
        "by sorting, least likely of the k first",
        "q4_cut",
        """
def cut(teacher_logits, k, temperature):
    z = teacher_logits.double() / temperature
    ordered, ids = z.sort(dim=-1)
    log_z = z.logsumexp(-1, keepdim=True)
    kept = ordered[:, -k:] - log_z
    return ids[:, -k:], kept.float(), (ordered[:, :-k] - log_z).logsumexp(-1).float()
""",
    ),
    Right(
        "rounded up from bits",
        "q4_bytes",
        """
def cache_bytes(tokens, vocab, k):
    id_bytes = max(2, -(-(vocab - 1).bit_length() // 8))
    return sum([tokens * k * id_bytes, 2 * tokens * k, 2 * tokens])
""",
    ),
    Right(
        "xlogy and a mask",
        "q5_bucket_kl",
        """
def bucket_kl(student_logits, token_ids, logprobs, log_tail, temperature):
    z = student_logits / temperature
    inside = torch.zeros_like(z, dtype=torch.bool).scatter(-1, token_ids, True)
    rest = torch.logsumexp(z.masked_fill(inside, -torch.inf), dim=-1)
    total = torch.logsumexp(z, dim=-1)
    p_tail = log_tail.exp()
    on_top = logprobs.exp() * (logprobs - z.gather(-1, token_ids) + total[:, None])
    return on_top.sum(-1) + torch.xlogy(p_tail, p_tail) - p_tail * (rest - total)
""",
    ),
    Right(
        "kl_div over k + 1 words",
        "q5_bucket_kl",
        """
def bucket_kl(student_logits, token_ids, logprobs, log_tail, temperature):
    z = student_logits.double() / temperature
    rest = z.scatter(-1, token_ids, -torch.inf).logsumexp(-1, keepdim=True)
    log_q = torch.cat([z.gather(-1, token_ids), rest], -1).log_softmax(-1)
    p = torch.cat([logprobs, log_tail[:, None]], -1).double().exp()
    return torch.nn.functional.kl_div(log_q, p, reduction="none").sum(-1)
""",
    ),
]
