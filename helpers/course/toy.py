"""A language model and rows so small that a test can see through them."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

END = 1  # ends every answer


class Bigram(nn.Module):
    """The logits after a token are that token's row of a table, `table.weight` (V, V).

    It is called as a model of transformers is; `words` is V. A teacher with `dropout`
    answers by chance in train mode, the mode in which every module starts.
    """

    def __init__(self, words: int = 12, seed: int = 0, dropout: float = 0.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        values = 2 * torch.randn(words, words, generator=generator)
        self.table = nn.Embedding.from_pretrained(values, freeze=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None):
        """(B, T) -> an object whose `logits` are (B, T, V)."""
        return SimpleNamespace(logits=self.dropout(self.table(input_ids)))


def row(prompt: list[int], answer: list[int]) -> dict[str, list[int]]:
    """A row as `data.encode_chat` makes them: the answer's end token is added."""
    answer = [*answer, END]
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def rows(count: int, words: int = 12, seed: int = 0) -> list[dict[str, list[int]]]:
    """Prompts of 2 to 5 random tokens, answers of 1 to 8; 0 and 1 occur in neither."""
    generator = torch.Generator().manual_seed(seed)

    def some(low: int, high: int) -> list[int]:
        size = int(torch.randint(low, high + 1, (1,), generator=generator))
        return torch.randint(2, words, (size,), generator=generator).tolist()

    return [row(some(2, 5), some(1, 8)) for _ in range(count)]
