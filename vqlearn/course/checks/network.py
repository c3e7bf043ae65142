"""Checks of notebook 05b, the denoiser."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from vqlearn.course.checks.cases import redrawn, whole
from vqlearn.course.checks.check import Check
from vqlearn.course.outcomes import Case, Function

# ------------------------------------------------------------------------------------------ tokens and positions


def embedding(tokens: Tensor, codes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    i = torch.arange(len(tokens))
    return codes[tokens] + rows[i // len(columns)] + columns[i % len(columns)]


def column_by_column(tokens: Tensor, codes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    i = torch.arange(len(tokens))
    return codes[tokens] + rows[i % len(rows)] + columns[i // len(rows) % len(columns)]


def multiplied(tokens: Tensor, codes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    i = torch.arange(len(tokens))
    return codes[tokens] * rows[i // len(columns)] * columns[i % len(columns)]


def masks_at_zero(tokens: Tensor, codes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return embedding(tokens, torch.cat([codes[:-1], torch.zeros_like(codes[-1:])]), rows, columns)


def as_last_code(tokens: Tensor, codes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    return embedding(tokens.clamp(max=len(codes) - 2), codes, rows, columns)


def tables(codes: int, height: int, width: int, channels: int = 2, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors of the codes and the mask, of the rows and of the columns, with few decimals."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(small(generator, n, channels) for n in (codes + 1, height, width))  # type: ignore[return-value]


def small(generator: Generator, *shape: int) -> Tensor:
    """Numbers around 0 in steps of a tenth, so that a case can be read."""
    return torch.randint(-15, 16, shape, generator=generator).double() / 10


def redraw(case: Case, generator: Generator) -> Case:
    """Other numbers in every table; what is whole stays."""
    return tuple(
        redrawn(x, generator) * 3 - 1.5 if isinstance(x, Tensor) and x.is_floating_point() else x for x in case
    )


embed = Check(
    name="embed",
    question="the vectors of the tokens at their positions, `[L, C]`",
    solution=embedding,
    cases=[
        (torch.tensor([0, 3, 1, 3, 2, 0]), *tables(3, 2, 3)),
        (torch.tensor([4, 4, 0, 2, 1]), *tables(4, 3, 2, seed=1)),  # a grid that is not full
    ],
    mistakes=[
        ("tokens lie row by row: position i is in row i // W and column i % W for W columns", column_by_column),
        (
            "the positions are missing: the network could not tell a corner from the middle",
            lambda x, codes, *_: codes[x],
        ),
        ("the mask has a vector of its own, the last of `codes`, and is not the last code", as_last_code),
        ("a masked token has a vector too, the last of `codes`: that leaves it out", masks_at_zero),
        (
            "the columns are missing",
            lambda x, codes, rows, columns: embedding(x, codes, rows, torch.zeros_like(columns)),
        ),
        ("the rows are missing", lambda x, codes, rows, columns: embedding(x, codes, torch.zeros_like(rows), columns)),
        ("the three vectors are added, not multiplied", multiplied),
    ],
    praise="a vector for what a token is, and two for where.",
    vary=redraw,
)

# ------------------------------------------------------------------------------------------ the norm and the time


def ada_norm(
    x: Tensor,
    time: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    act: Function = F.silu,
    one: float = 1.0,
    norm: Function = lambda x: F.layer_norm(x, x.shape[-1:]),
    turned: bool = False,
    act_last: bool = False,
) -> Tensor:
    """The norm of (5b.2); the options are mistakes."""
    numbers = act(time) @ weight.T + bias
    scale, shift = (F.silu(numbers) if act_last else numbers).chunk(2)
    scale, shift = (shift, scale) if turned else (scale, shift)
    return norm(x) * (one + scale) + shift


def over_positions(x: Tensor) -> Tensor:
    return F.layer_norm(x.T, x.shape[:1]).T


def unbiased(x: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)


def unchanged(x: Tensor) -> Tensor:
    return x


def norm_case(length: int, channels: int, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)
    shapes = (length, channels), (channels,), (2 * channels, channels), (2 * channels,)
    return tuple(small(generator, *shape) for shape in shapes)


adaptive_norm = Check(
    name="adaptive_norm",
    question="AdaLayerNorm of the vectors x for one time, `[L, C]`",
    solution=ada_norm,
    cases=[norm_case(2, 3, 0), norm_case(3, 4, 1)],
    mistakes=[
        ("multiply by 1 + scale: a scale of 0 leaves the vector as it is", partial(ada_norm, one=0.0)),
        ("the first half of the numbers is the scale, the second the shift", partial(ada_norm, turned=True)),
        ("SiLU of the time's vector is missing before the linear layer", partial(ada_norm, act=unchanged)),
        ("that is the ReLU: SiLU is z times sigmoid(z)", partial(ada_norm, act=F.relu)),
        ("SiLU comes before the linear layer, not after it", partial(ada_norm, act=unchanged, act_last=True)),
        (
            "normalise each position over its C numbers, not each number over the positions",
            partial(ada_norm, norm=over_positions),
        ),
        ("the variance is the mean of squares: divide by C, not by C - 1", partial(ada_norm, norm=unbiased)),
        ("x itself has to be normalised first", partial(ada_norm, norm=unchanged)),
    ],
    praise="normalised as always, then scaled and shifted as the time wants it.",
    vary=redraw,
)

# ------------------------------------------------------------------------------------------ attention


def weighted(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    *,
    power: float = 0.5,
    each: bool = True,
    over: int = -1,
    causal: bool = False,
) -> Tensor:
    """Attention of `heads` heads (5b.3); the options are mistakes."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k, v))  # [heads, L or S, C / heads]
    size = q.shape[-1] * (1 if each else heads)
    scores = q @ k.mT / size**power
    if causal:
        scores = scores + torch.full_like(scores, -torch.inf).triu(1)
    return (scores.softmax(over) @ v).transpose(0, 1).flatten(1)


def interleaved(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Head h has the numbers h, h + heads, h + 2 heads, ..."""
    width = q.shape[-1]
    order = torch.arange(width).view(-1, heads).T.flatten()
    found = weighted(q[:, order], k[:, order], v[:, order], heads)
    return torch.zeros_like(found).index_copy(1, order, found)


def unweighted(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    return v.mean(0).expand(len(q), -1)


def attention_case(length: int, others: int, heads: int, size: int, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (small(generator, n, heads * size) for n in (length, others, others))
    return q, k, v, heads


attention = Check(
    name="attention",
    question="what the queries find, `[L, C]`",
    solution=weighted,
    cases=[attention_case(2, 3, 2, 2, 0), attention_case(3, 2, 1, 3, 1), attention_case(2, 2, 3, 2, 2)],
    mistakes=[
        ("divide the scores by the root of d = C / heads before the softmax", partial(weighted, power=0.0)),
        ("the root is that of d = C / heads, the size of a head, not of C", partial(weighted, each=False)),
        ("divide by the root of d, not by d", partial(weighted, power=1.0)),
        ("the weights of one query sum to 1: softmax over the keys, the last dimension", partial(weighted, over=-2)),
        ("that is one head: each of them has weights of its own", lambda q, k, v, heads: weighted(q, k, v, 1)),
        ("a head takes d numbers in a row, not every heads-th one", interleaved),
        ("no position is hidden from another: a picture has no order", partial(weighted, causal=True)),
        ("that is the mean of the values: the weights come from queries and keys", unweighted),
    ],
    praise="each head weighs the values by how well their keys fit the query.",
    vary=redraw,
)

# ------------------------------------------------------------------------------------------ a block


def quick_gelu(z: Tensor) -> Tensor:
    return z * torch.sigmoid(1.702 * z)


def plain_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def added(x: Tensor, norm: Function, layer: Function) -> Tensor:
    return x + layer(norm(x))


def one_block(
    x: Tensor,
    text: Tensor,
    norms: Tensor,
    own: Tensor,
    cross: Tensor,
    up: Tensor,
    down: Tensor,
    *,
    join: Function = added,
    order: Sequence[int] = (0, 1, 2),
    act: Function = quick_gelu,
    last_norm: Function = plain_norm,
    projected: bool = True,
) -> Tensor:
    """A block with one head and no biases (5b.6); the options are mistakes."""

    def attend(h: Tensor, context: Tensor, w: Tensor) -> Tensor:
        found = weighted(h @ w[0].T, context @ w[1].T, context @ w[2].T, 1)
        return found @ w[3].T if projected else found

    branches: list[tuple[Function, Function]] = [
        (lambda x: plain_norm(x) * (1 + norms[0][0]) + norms[0][1], lambda h: attend(h, h, own)),
        (lambda x: plain_norm(x) * (1 + norms[1][0]) + norms[1][1], lambda h: attend(h, text, cross)),
        (last_norm, lambda h: act(h @ up.T) @ down.T),
    ]
    for number in order:
        x = join(x, *branches[number])
    return x


def not_added(x: Tensor, norm: Function, layer: Function) -> Tensor:
    return layer(norm(x))


def normed_after(x: Tensor, norm: Function, layer: Function) -> Tensor:
    return norm(x + layer(x))


def normed_path(x: Tensor, norm: Function, layer: Function) -> Tensor:
    return norm(x) + layer(norm(x))


def norms_swapped(x: Tensor, text: Tensor, norms: Tensor, *weights: Tensor) -> Tensor:
    return one_block(x, text, norms.flip(0), *weights)


def block_case(length: int, words: int, seed: int, channels: int = 3, hidden: int = 4) -> Case:
    generator = torch.Generator().manual_seed(seed)
    matrices = (4, channels, channels)
    shapes = (length, channels), (words, channels), (2, 2, channels), matrices, matrices
    return tuple(small(generator, *shape) for shape in (*shapes, (hidden, channels), (channels, hidden)))


block = Check(
    name="block",
    question="what leaves the block, `[L, C]`",
    solution=one_block,
    cases=[block_case(2, 1, 0), block_case(2, 3, 1)],
    mistakes=[
        (
            "a branch is added to the main path: x + layer(norm(x)), not layer(norm(x))",
            partial(one_block, join=not_added),
        ),
        (
            "the norm stands inside the branch, before the layer, not after the sum",
            partial(one_block, join=normed_after),
        ),
        ("the main path itself is not normalised: add to x, not to norm(x)", partial(one_block, join=normed_path)),
        ("the feed-forward has a norm too, without scale and shift", partial(one_block, last_norm=unchanged)),
        ("self-attention comes first, then the text", partial(one_block, order=(1, 0, 2))),
        ("norms[0] is that of self-attention, norms[1] that of cross-attention", norms_swapped),
        ("the fourth matrix of an attention is its output projection", partial(one_block, projected=False)),
        ("the activation is z sigmoid(1.702 z), not the exact GELU", partial(one_block, act=F.gelu)),
        ("the activation is z sigmoid(1.702 z), not z sigmoid(z)", partial(one_block, act=F.silu)),
        ("the activation is z sigmoid(1.702 z), not the ReLU", partial(one_block, act=F.relu)),
    ],
    praise="three branches, each normalised before its layer and added after it.",
    vary=redraw,
)

# ------------------------------------------------------------------------------------------ its size


def count(
    width: int,
    layers: int,
    side: int,
    text: int,
    codes: int,
    steps: int,
    *,
    feed_forward: int = 8,
    biases: bool = True,
    tables: int | None = None,
    adaptive: int = 2,
    states: int = 1,
    logits: int = 0,
    positions: int | None = None,
    last: bool = True,
    blocks: int | None = None,
) -> int:
    """Numbers in the weights of a denoiser that reads text; the options are mistakes."""
    b = width * biases
    ada = adaptive * (2 * width**2 + 2 * b)
    attention = 4 * (width**2 + b) + 2 * (width**2 + b) + 2 * (text * width + b)
    rest = (2 * width if last else 0) + feed_forward * width**2 + (feed_forward - 3) * b
    all_blocks = (layers if blocks is None else blocks) * (ada + attention + rest)
    times = (adaptive * layers if tables is None else tables) * steps * width
    embeddings = (codes + states) * width + (2 * side if positions is None else positions) * width
    head = 2 * width + (width + biases) * (codes + logits)
    return all_blocks + times + embeddings + head


def text_of_its_width(width: int, layers: int, side: int, text: int, codes: int, steps: int) -> int:
    return count(width, layers, side, width, codes, steps)


def table_of_positions(width: int, layers: int, side: int, text: int, codes: int, steps: int) -> int:
    return count(width, layers, side, text, codes, steps, positions=side**2)


def other_sizes(case: Case, generator: Generator) -> Case:
    width, layers, side = 8 * whole(generator, 4, 200), whole(generator, 2, 40), whole(generator, 4, 40)
    text = width + 8 * whole(generator, 1, 40)  # never the width itself
    return width, layers, side, text, whole(generator, 100, 5000), whole(generator, 20, 200)


parameter_count = Check(
    name="parameter_count",
    question="how many numbers the weights of the denoiser are",
    solution=count,
    cases=[(1408, 36, 32, 512, 4096, 100), (8, 2, 3, 6, 5, 10), (192, 18, 16, 256, 1024, 50)],
    mistakes=[
        ("the feed-forward is not gated: C to 4 C and back", partial(count, feed_forward=12)),
        ("linear layers have biases", partial(count, biases=False)),
        ("each AdaLayerNorm has a table of times of its own, two in every block", partial(count, tables=1)),
        ("there are two AdaLayerNorms in a block, for two attentions", partial(count, adaptive=1)),
        ("the mask has a row in the token table: K + 1", partial(count, states=0)),
        ("there is no logit for the mask: the last layer has K outputs", partial(count, logits=1)),
        ("positions are a row and a column vector: 2 side, not side squared", table_of_positions),
        ("keys and values of the text go from D numbers to C", text_of_its_width),
        ("the LayerNorm before the feed-forward has a scale and a shift, C numbers each", partial(count, last=False)),
        ("that is one block: there are `layers` of them", lambda *case: count(*case, blocks=1, tables=2)),
    ],
    praise="blocks, the tables of codes, positions and times, and the output layer.",
    vary=other_sizes,
)
