"""The attention block that our own transformers and the published ones are stacks of."""

from __future__ import annotations

from typing import cast, final

import torch.nn.functional as F
from torch import Tensor, nn


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
            *(nn.LayerNorm(width), nn.Linear(width, feed_forward), nn.GELU(), nn.Dropout(inner_dropout)),
            nn.Linear(feed_forward, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens in, tokens out."""
        batch, tokens, _ = x.shape
        packed = self.query_key_value(self.norm(x)).view(batch, tokens, 3, self.heads, self.head_width)
        query, key, value = packed.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, tokens, -1)
        x = x + self.dropout(self.out(mixed))
        return cast(Tensor, x + self.dropout(self.feed_forward(x)))
