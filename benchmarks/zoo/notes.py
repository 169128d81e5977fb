"""Why what is missed is missed, by network: for the table."""

MISSED: dict[str, str] = {
    "GPT-2": "the last position's own embedding does nothing, since its logits are left out by a label of -100, "
    "and labels are data",
    "BERT": "the scale of the tied table holds while the padding's row is zero, which the head does not "
    "keep so (the search leaves that row as it is)",
    "OPT": "rows of positions that are never met, the last position as in GPT-2, and the scale of a tied table with a "
    "row of padding as in BERT",
    "T5": "rows of relative positions that are never met",
    "Gemma": "its norms multiply by 1 + γ, so what is conserved against the next layer is Σ(1 + γ)², of no kind here",
    "Mixtral": "its grouped product has no float64; its configuration can choose another",
    "GCN": "self-loops are added by a mask of the edges, whose size is taken for data's",
    "GAT": "self-loops are added by a mask of the edges, whose size is taken for data's",
}
