"""Answers to lab 06, find the bugs: tests, good and bad, and scripts mended badly."""

from . import Right, Wrong

BUILD = "Distiller(toy.Bigram(12, seed=1), toy.Bigram(12, seed=2){})"
LATER = '    raise NotImplementedError("not yet")'
NAMES = {"q1": "ab", "q2": "cde", "q3": "fgh"}


def tests(question: str, *bodies: str) -> str:
    """The cell of a question: these bodies, then tests that are not written."""
    code = ""
    for place, letter in enumerate(NAMES[question]):
        body = bodies[place] if place < len(bodies) else LATER
        code += f"def test_{letter}(Distiller):\n{body}\n\n\n"
    return code


def wrong(name: str, check: str, says: str, *bodies: str) -> Wrong:
    question = check[:2]
    return Wrong(name, f"{question}_write", tests(question, *bodies), check, says)


def mended(name: str, check: str, says: str, *methods: str) -> Wrong:
    return Wrong(name, "q4_mend", MENDED + "\n".join(methods), f"q4_{check}", says)


ENDS = f"""
    distiller = {BUILD.format(", pad_token_id=toy.END")}
    labels = distiller.collate(toy.rows(3))["labels"]
    assert (labels == toy.END).sum() == 3
"""
COUNTS = f"""
    distiller = {BUILD.format(", pad_token_id=1")}
    rows = [toy.row([7], [3] * n) for n in (1, 2, 6)]
    kept = (distiller.collate(rows)["labels"] != -100).sum(dim=1)
    assert kept.tolist() == [2, 3, 7], "an answer has lost a label"
"""
ALIGNED = f"""
    distiller, ids = {BUILD.format("")}, torch.tensor([[4, 7, 2, 9, 1]])
    logits = F.one_hot(ids.roll(-1, 1), 12) * 50.0  # sure of the next token
    logits, targets = distiller.align(logits, ids)
    assert (logits.argmax(-1) == targets).all()
"""
LOSS_BY_HAND = f"""
    distiller = {BUILD.format(", temperature={}, soft_weight=1.0")}
    targets = torch.tensor([[{{}}]])
    z, t = torch.randn(2, 1, 3, 12)
    q, p = (x.div({{}}).log_softmax(-1) for x in (z, t))
    kl = (p.exp() * (p - q)).sum(-1)[targets != -100]
    assert abs(distiller.loss(z, t, targets) - {{}} * kl.mean()) < 1e-4
"""
PADDED = f"""
    distiller, targets = {BUILD.format(", temperature=1.0")}, torch.tensor([[3, 4, 1]])
    z, t = torch.randn(2, 1, 3, 12)
    plain = distiller.loss(z, t, targets)
    z, t = (torch.cat([x, torch.randn(1, 4, 12)], 1) for x in (z, t))
    padded = distiller.loss(z, t, F.pad(targets, (0, 4), value=-100))
    assert torch.isclose(plain.float(), padded.float(), atol=1e-5)
"""
WIDER_STUDENT = f"""
    distiller = {BUILD.format(", temperature=1.0")}
    same = torch.randn(1, 3, 12)
    spare = torch.cat([same, torch.full((1, 3, 5), 9.0)], -1)
    targets = torch.full((1, 3), 2)
    found = [float(distiller.loss(z, same, targets)) for z in (same, spare)]
    assert max(found) - min(found) < 1e-4
"""
MODES = """
    class Watched(toy.Bigram):
        def forward(self, *args, **kwargs):
            modes.append(self.training)
            return super().forward(*args, **kwargs)

    modes = []
    distiller = Distiller(toy.Bigram(12), Watched(12).train())
    distiller.ask(distiller.collate(toy.rows(2)))
    assert modes and not any(modes)
"""
FLAG = f"""
    distiller = {BUILD.format("")}
    distiller.ask(distiller.collate(toy.rows(2)))
    assert distiller.teacher.training is False
"""
BACKWARDS = f"""
    distiller = {BUILD.format("")}
    rows = [toy.row([2, 3], [4] * (8 - n)) for n in range(5)]  # the longest first
    distiller.remember(rows)
    for number in (4, 0, 2):
        ids = torch.tensor(rows[number]["input_ids"])
        logits = distiller.recall([number], len(ids))[0]
        assert torch.allclose(logits, distiller.teacher.table.weight[ids])
"""
BY_LENGTH = f"""
    distiller = {BUILD.format("")}
    rows = [toy.row([2, 3], [4] * n) for n in range(1, 6)]
    distiller.remember(rows)
    for number, row in enumerate(rows):
        ids = torch.tensor(row["input_ids"])
        logits = distiller.recall([number], len(ids))[0]
        assert torch.allclose(logits, distiller.teacher.table.weight[ids])
"""
PIECES = """
    rows, tables = [toy.row([5], [7] * {0}), toy.row([6], [7] * {1})], []
    for pieces in ([rows], [[row] for row in rows]):
        distiller = Distiller(toy.Bigram(12, 1), toy.Bigram(12, 2), soft_weight=0.0)
        distiller.optimiser = torch.optim.SGD(distiller.student.parameters(), lr=1.0)
        batches = [distiller.collate(piece) for piece in pieces]
        distiller.step([(batch, distiller.ask(batch)) for batch in batches])
        tables.append(distiller.student.table.weight.detach())
    assert torch.allclose(*tables, atol=1e-5)
"""
MENDED = '''
def words(ours, theirs):
    n = min(ours.shape[-1], theirs.shape[-1])
    return ours[..., :n], theirs[..., :n]


class Mended(Distiller):
    """All other methods are replaced by right ones in the checks."""

    def collate(self, rows):
        batch = super().collate(rows)
        for labels, row in zip(batch["labels"], rows, strict=True):
            labels[: len(row["labels"])] = torch.tensor(row["labels"])
        return batch

    def align(self, logits, labels):
        return logits[:, :-1], labels[:, 1:]

    def match(self, ours, theirs):
        return words(ours, theirs)

    def loss(self, ours, theirs, targets, num_items=None):
        return self.mixed(*self.match(ours, theirs), targets, num_items)

    def mixed(self, z, t, targets, num_items, factor=None, turned=False):
        mask, T, w = targets != -100, self.temperature, self.soft_weight
        count = mask.sum() if num_items is None else num_items
        q, p = ((x[mask] / T).log_softmax(-1) for x in (z, t))
        q, p = (p, q) if turned else (q, p)
        soft = F.kl_div(q, p, reduction="sum", log_target=True)
        hard = F.cross_entropy(z[mask], targets[mask], reduction="sum")
        factor = T * T if factor is None else factor
        return ((1 - w) * hard + w * factor * soft) / count

    def ask(self, batch):
        self.teacher.eval()
        return super().ask(batch)

    def remember(self, rows, size=32):
        width = max(len(row["labels"]) for row in rows)
        self.signals = [F.pad(z, (0, 0, 0, width - len(z))) for z in
                        (self.ask(self.collate([row]))[0] for row in rows)]

'''
FREE_STEP = """
    def step(self, batches, whole=True):
        self.student.train()
        self.optimiser.zero_grad()
        kept = [(batch["labels"][:, 1:] != -100).sum() for batch, _ in batches]
        losses = []
        for (batch, theirs), n in zip(batches, kept):
            ours = self.student(batch["input_ids"], batch["attention_mask"]).logits
            ours, targets = self.align(ours, batch["labels"])
            theirs, _ = self.align(theirs, batch["labels"])
            losses.append({each})
        total = sum(losses)
        total.backward()
        self.optimiser.step()
        return total.item()
"""
STEP = FREE_STEP.format(each="self.loss(ours, theirs, targets, num_items=sum(kept))")

WRONG = [
    wrong(
        "a test that always fails", "q1_one", "would fail always", "    assert False"
    ),
    wrong("a test that passes", "q1_one", "exposes nothing", "    assert Distiller"),
    wrong(
        "a test that calls wrongly",
        "q1_one",
        "TypeError in line 1",
        "    Distiller().collate([])",
    )._replace(says="TypeError in line 2"),
    wrong(
        "a test that reads the source",
        "q1_one",
        "not at how it is written",
        "    import inspect\n"
        '    assert "== self.pad_token_id" not in inspect.getsource(Distiller)',
    ),
    wrong(
        "a test that knows the class",
        "q1_one",
        "on no version with a single bug",
        "    assert Distiller.__base__ is not object",
    ),
    wrong(
        "a bug of another question",
        "q1_one",
        "a bug of question 2",
        PADDED,
    ),
    wrong("the same bug twice", "q1_two", "the same bug as test_a", ENDS, COUNTS),
    wrong(
        "mask and factor in one test",
        "q2_one",
        "2 different bugs",
        LOSS_BY_HAND.format(3, "-100, 4, 5", 3, 9),
    ),
    wrong(
        "a factor tested at temperature 1",
        "q2_one",
        "exposes nothing",
        LOSS_BY_HAND.format(1, "3, 4, 5", 1, 1),
    ),
    wrong(
        "the loss without its factor demanded",
        "q2_one",
        "would fail always",
        LOSS_BY_HAND.format(3, "-100, 4, 5", 3, 1),
    ),
    wrong(
        "the flag in place of the promise",
        "q3_one",
        "demands more than the docstrings promise",
        FLAG,
    ),
    wrong("rows that are sorted", "q3_one", "exposes nothing", BY_LENGTH),
    wrong("pieces of one length", "q3_one", "exposes nothing", PIECES.format(3, 3)),
    mended(
        "end still hidden",
        "rows",
        "the end of an answer has no label",
        STEP,
        "    def collate(self, rows):\n        return Distiller.collate(self, rows)",
    ),
    mended(
        "shifted twice",
        "rows",
        "not scored against the token that follows",
        STEP,
        "    def align(self, logits, labels):\n"
        "        return logits[:, :-2], labels[:, 2:]",
    ),
    mended(
        "mean over all positions",
        "loss",
        "does the soft part know the mask",
        STEP,
        "    def loss(self, z, t, targets, num_items=None):\n"
        "        z, t = self.match(z, t)\n"
        "        return super().loss(z, t, targets, num_items)",
    ),
    mended(
        "T once",
        "loss",
        "the soft gradient shrinks",
        STEP,
        "    def loss(self, z, t, targets, num_items=None):\n"
        "        z, t = self.match(z, t)\n"
        "        return self.mixed(z, t, targets, num_items, 1)",
    ),
    mended(
        "T squared over all",
        "loss",
        "T² multiplies the hard part as well",
        STEP,
        "    def loss(self, z, t, targets, num_items=None):\n"
        "        z, t = self.match(z, t)\n"
        "        return self.temperature**2 * self.mixed(z, t, targets, num_items, 1)",
    ),
    mended(
        "KL turned round",
        "loss",
        "the KL is turned round",
        STEP,
        "    def loss(self, z, t, targets, num_items=None):\n"
        "        z, t = self.match(z, t)\n"
        "        return self.mixed(z, t, targets, num_items, turned=True)",
    ),
    mended(
        "columns still padded",
        "loss",
        "columns that only one model has",
        STEP,
        "    def match(self, ours, theirs):\n"
        "        return Distiller.match(self, ours, theirs)",
    ),
    mended(
        "num_items not used",
        "loss",
        "`num_items` is not used",
        STEP,
        "    def loss(self, z, t, targets, num_items=None):\n"
        "        return self.mixed(*self.match(z, t), targets, None)",
    ),
    mended(
        "teacher still in train mode",
        "teacher",
        "in which mode is it",
        STEP,
        "    def ask(self, batch):\n        return Distiller.ask(self, batch)",
    ),
    mended(
        "eval mode flipped on the student too",
        "teacher",
        "the student into eval mode",
        STEP,
        "    def ask(self, batch):\n"
        "        self.teacher.eval(), self.student.eval()\n"
        "        return Distiller.ask(self, batch)",
    ),
    mended(
        "signals still in another order",
        "teacher",
        "a row gets the signal of another one",
        STEP,
        "    def remember(self, rows, size=32):\n"
        "        return Distiller.remember(self, rows, size)",
    ),
    mended(
        "still a mean of means",
        "step",
        "in pieces give different steps",
        FREE_STEP.format(each="self.loss(ours, theirs, targets) / len(kept)"),
    ),
    mended(
        "a sum of means",
        "step",
        "in pieces give different steps",
        FREE_STEP.format(each="self.loss(ours, theirs, targets)"),
    ),
]

RIGHT = [
    Right("labels counted, sure of the next", "q1_write", tests("q1", ALIGNED, COUNTS)),
    Right(
        "by hand, padding appended, a wider student",
        "q2_write",
        tests("q2", LOSS_BY_HAND.format(3, "3, 4, 5", 3, 9), WIDER_STUDENT, PADDED),
    ),
    Right(
        "watched modes, longest row first, weights after a step",
        "q3_write",
        tests("q3", BACKWARDS, PIECES.format(1, 6), MODES),
    ),
    Right("each row asked alone, one way back", "q4_mend", MENDED + STEP),
]
