"""The attention block that our own transformers and the published ones are stacks of, and its dropout."""

from __future__ import annotations

from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_WORD_BITS = 31  # those of an int32 that is not negative


@final
class Dropout(nn.Dropout):
    """Dropout whose fair coins are the bits of random words: torch draws one number a value, half the time of a step.

    Draws from torch's global generator of the device. A share other than .5 is torch's own dropout.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Values doubled or 0."""
        if not self.training or self.p != 0.5:
            return super().forward(input)
        words = torch.empty(-(-input.numel() // _WORD_BITS), dtype=torch.int32, device=input.device).random_()
        shifts = torch.arange(_WORD_BITS, dtype=torch.int32, device=input.device)[:, None]
        bits = torch.bitwise_left_shift(words, shifts).bitwise_and_(1 << 30)  # as a float32, that bit alone is 2.0
        coins = bits.view(torch.float32).flatten()
        return input * coins.as_strided(input.shape, torch.empty_like(input).stride()).to(input.dtype)


@final
class AttentionBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, dropout before each residual sum; `(batch, token, width)`.

    `inner_dropout` stands between the two layers of the feed-forward part.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_width: int,
        feed_forward: int,
        dropout: float,
        inner_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * heads * head_width, bias=False)
        self.out = nn.Linear(heads * head_width, width)
        self.feed_forward = nn.Sequential(
            *(nn.LayerNorm(width), nn.Linear(width, feed_forward), nn.GELU(), Dropout(inner_dropout)),
            nn.Linear(feed_forward, width),
        )
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Tokens in, tokens out; with `first`, that many of them, at the cost of their queries alone."""
        attend = self._folded if self.head_width >= x.shape[2] else self._by_head
        x = x[:, :first] + self.dropout(attend(self.norm(x), first))
        return cast(Tensor, x + self.dropout(self.feed_forward(x)))

    def _by_head(self, z: Tensor, first: int | None) -> Tensor:
        """Queries, keys and values of every head."""
        batch, tokens, _ = z.shape
        packed = self.query_key_value(z).view(batch, tokens, 3, self.heads, self.head_width)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query[:, :, :first], key, value)
        return cast(Tensor, self.out(mixed.transpose(1, 2).flatten(2)))

    def _folded(self, z: Tensor, first: int | None) -> Tensor:
        """The same where heads are no narrower than tokens: a head's products of weights stand in for its weights.

        query . key = z (Wq' Wk) z', and out(value) = (Wv' Wo) z: the tokens themselves are the keys and the values of
        all heads, for a third of the products, and nothing is permuted.
        """
        batch, _, width = z.shape
        query, key, value = self.query_key_value.weight.view(3, self.heads, self.head_width, width)
        asking = torch.bmm(query.transpose(1, 2), key)  # (head, width, width)
        answering = torch.bmm(value.transpose(1, 2), self.out.weight.view(width, self.heads, -1).permute(1, 2, 0))
        queries = F.linear(z[:, :first], asking.transpose(1, 2).flatten(0, 1)).view(batch, 1, -1, width)
        tokens = z[:, None]
        mixed = F.scaled_dot_product_attention(queries, tokens, tokens, scale=self.head_width**-0.5)
        return F.linear(mixed.view(batch, -1, self.heads * width), answering.flatten(0, 1).T, self.out.bias)
