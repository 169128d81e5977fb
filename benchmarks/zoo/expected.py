"""Charges counted by hand, from the mathematics of the architecture and before anything was run.

t, s, r, m are translations, scales, rescales and the distinct entries of matrix charges; a rescale that is on the
diagonal of a matrix is counted there alone. "Head" is a last layer before a softmax: what is added to all its rows, for
each column and for the bias, is free.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Expected:
    """Counts by kind, and why."""

    counts: dict[str, int]
    why: str


def _by_hand(t: int, s: int, r: int, m: int, why: str) -> Expected:
    return Expected({"translation": t, "scale": s, "rescale": r, "matrix": m}, why)


EXPECTED: dict[str, Expected] = {
    "MLP of tanh": _by_hand(6, 0, 0, 0, "head 5 + 1"),
    "Deep linear network": _by_hand(0, 0, 0, 12, "GL(3) between the layers, twice: 6 each"),
    "GPT-2": _by_hand(
        42,
        0,
        17,
        24,
        "t: c added to each row of the tied table and taken from each position's, 4 (the head's logits change alike); "
        "all-ones in each of 5 positions, 5, and the last "
        "position's other 3 (nothing follows it, and its own logits are not asked for); all-ones in the columns and "
        "bias of what writes to the residual stream, "
        "(4+1) + (5+1) a layer, 22; key biases 8. r: gain and bias of two norms a layer against what reads them, 16; "
        "both tables and all that writes, against the last norm's gain and bias (the head is the table), 1. m: GL(2) "
        "of query and key and of value and output of 2 heads in 2 layers, 3 each",
    ),
    "Llama": _by_hand(
        8,
        1,
        31,
        6,
        "t: head 8 (no bias; RMSNorm keeps the mean). s: table and all that writes to the residual stream. r: gains of "
        "3 norms against what reads them, 24; up against down, 5; q and k of the 2 groups, whose heads have one plane "
        "of rotation each, 2. m: GL(2) of value and the output columns of both heads that read it, 3 a group",
    ),
    "ViT": _by_hand(
        80,
        1,
        20,
        24,
        "t: patch bias against positions 4, class token against its position 4, all-ones of each position 5, of each "
        "of 32 entries of the patch kernel 32, of the columns and biases of what writes (4+1) + (5+1) a layer, 22; key "
        "biases 8; head 4 + 1. s: all that writes to the residual stream. r: gain and bias of 5 norms against what "
        "reads them. m: GL(2) of q, k and of v, o of 2 heads in 2 layers, 3 each",
    ),
    "VGG": _by_hand(6, 0, 12, 0, "r: ReLU channels 3 + 4 + 5; t: head 5 + 1"),
    "VGG, BatchNorm": _by_hand(
        13,
        7,
        12,
        0,
        "s: kernels of 3 + 4 channels; t: their dead biases 7, head 6; r: gain, bias against next 3 + 4 + 5",
    ),
    "LSTM": _by_hand(21, 0, 0, 0, "the two biases of 4 gates of 4 meet in a sum, 16; head 4 + 1"),
    "GRU": _by_hand(
        13, 0, 0, 0, "biases of 2 gates of 4 (the third's recurrent one is behind a product), 8; head 4 + 1"
    ),
    "RNN of ReLU": _by_hand(
        9, 0, 4, 0, "t: two biases 4, head 4 + 1. r: a unit's rows against its recurrent and head columns, 4"
    ),
    "RNN language model": _by_hand(
        7, 0, 0, 6, "t: two biases 3, head 3 + 1; m: GL(3) of table and input weight"
    ),
    "LSTM language model, tied": _by_hand(
        13, 0, 0, 0, "two biases 12, head's bias 1; the table's two roles leave it nothing"
    ),
    "Sequence to sequence, additive attention": _by_hand(
        17,
        0,
        0,
        6,
        "t: gate biases 6 + 6, the score's bias 1, head 3 + 1. m: GL(3) of the table and both that read it",
    ),
    "Temporal convolutions, weight norm": _by_hand(
        0,
        6,
        4,
        0,
        "s: directions of 6 kernels. r: the second's length and bias and the side path against the head, 3; all "
        "lengths and biases of the first against the lengths of the second, 1 (overlooked at first)",
    ),
    "Diagonal state space": _by_hand(
        4, 0, 6, 0, "r: what enters a state against what leaves it; t: head 3 + 1"
    ),
    "nn.TransformerEncoder": _by_hand(
        20,
        0,
        10,
        12,
        "t: key biases 4, all-ones of both that write (4+1) + (5+1), head 4 + 1. r: ReLU 5; last norm's gain and bias "
        "against the head 4; the first's, which stays in the residual sum, with linear2 against linear1, 1. m: 4 of 3",
    ),
    "Highway": _by_hand(
        5,
        0,
        4,
        0,
        "r: a channel goes with its rows of enter and the ways, against columns of ways, gates and leave; t: head",
    ),
    "DeepONet": _by_hand(
        0, 0, 5, 6, "r: ReLU of the branch; m: GL(3) of the two last layers, weight and bias"
    ),
    "FNO": _by_hand(
        18,
        0,
        0,
        12,
        "t: imaginary parts at frequency 0 do nothing, 9 a layer. m: GL(3) behind lift and before the projection, "
        "where only linear maps of channels lie between",
    ),
    "SIREN": _by_hand(0, 0, 0, 0, "a sine is not homogeneous"),
    "PINN": _by_hand(
        0, 0, 0, 6, "GL(3) of two layers without activation between, derivatives by the input or not"
    ),
    "NeRF": _by_hand(
        0, 0, 15, 10, "r: ReLU 4 + 4 + 4 + 3; m: GL(4) of feature and its columns of the colour layer"
    ),
    "KAN": _by_hand(0, 0, 0, 0, "SiLU and bumps"),
    "Neural ODE": _by_hand(4, 0, 4, 0, "r: ReLU of the one field, used 8 times; t: head 3 + 1"),
    "Hypernetwork": _by_hand(0, 0, 7, 0, "ReLU of the writer 4 and of the written network 3"),
    "Mixture density": _by_hand(5, 0, 4, 0, "r: ReLU against three heads; t: the weights' head 4 + 1"),
    "Gated linear units": _by_hand(5, 0, 4, 0, "r: the value half against leave; t: head 4 + 1"),
    "Maxout": _by_hand(5, 0, 4, 0, "r: three rows of a unit against its column; t: head 4 + 1"),
    "Capsule network": _by_hand(0, 0, 0, 0, "only rotations, which have no charge"),
    "Autoencoder, tied decoder": _by_hand(0, 0, 0, 0, "the one weight cannot go both ways"),
    "Autoencoder, deep": _by_hand(0, 0, 8, 3, "r: ReLU 4 + 4; m: GL(2) at the code"),
    "VAE": _by_hand(0, 0, 8, 0, "ReLU 4 + 4; the divergence fixes the latents' scale"),
    "DCGAN, generator": _by_hand(
        0, 7, 7, 0, "s: kernels before BatchNorm 4 + 3; r: gain, bias against next 4 + 3"
    ),
    "DCGAN, discriminator": _by_hand(0, 4, 7, 0, "s: 4 kernels before BatchNorm; r: 3 + 4"),
    "WGAN critic": _by_hand(1, 0, 10, 0, "t: the last bias; r: leaky ReLU 5 + 5"),
    "WGAN critic, gradient penalty": _by_hand(1, 0, 10, 0, "as without the penalty, which is invariant"),
    "Siamese": _by_hand(3, 0, 6, 0, "t: the last bias; r: ReLU, both uses together"),
    "SimSiam": _by_hand(
        0,
        12,
        7,
        0,
        "s: rows before BatchNorm 4 + 4 + 3, the predictor's last layer before the cosine 1; r: 4 + 3",
    ),
    "Matrix factorisation": _by_hand(1, 0, 0, 6, "t: users' biases against items'; m: GL(3)"),
    "Two towers": _by_hand(
        3,
        0,
        10,
        26,
        "t: the items' last bias, the same for all of a softmax. r: ReLU 5 + 5. m: GL(4) of both tables, GL(3)",
    ),
    "DLRM": _by_hand(
        0,
        0,
        11,
        0,
        "ReLU 4 + 4; each table and the bottom's output against the columns of top that read their products, 3 (these "
        "three were overlooked at first, and found by the search)",
    ),
    "Wide and deep": _by_hand(
        1, 0, 4, 6, "t: wide table against the last bias; r: ReLU; m: GL(3) of the table and its columns"
    ),
    "DQN": _by_hand(0, 0, 10, 0, "ReLU 5 + 5"),
    "DQN, dueling": _by_hand(6, 0, 10, 0, "t: advantages less their mean 5 + 1; r: ReLU 5 + 5"),
    "Actor-critic": _by_hand(
        6, 0, 5, 0, "t: policy's head; r: ReLU against both heads (the stopped gradient sees neither)"
    ),
    "DeepSets": _by_hand(6, 0, 10, 10, "t: head 5 + 1; r: ReLU 5 + 5; m: GL(4) around the sum"),
    "GCN": _by_hand(5, 0, 4, 0, "r: ReLU; t: head 4 + 1"),
    "GraphSAGE": _by_hand(9, 0, 4, 0, "r: ReLU, both weights; t: head 4 + 4 + 1"),
    "GAT": _by_hand(
        1,
        0,
        4,
        0,
        "t: the last bias; r: a channel's rows and bias against its two attention entries and next",
    ),
    "GIN": _by_hand(
        12,
        8,
        12,
        6,
        "t: biases before BatchNorm 8, head 3 + 1. s: rows before BatchNorm. r: gain, bias against next 4 + 4, ReLU "
        "between the layers 4. m: GL(3) around the sum over a graph",
    ),
}
