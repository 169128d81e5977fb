"""Why what is missed is missed, by network: for the table."""

_TYPES = "the second row of token types is never met, since no types are given, and its entries do nothing"

MISSED: dict[str, str] = {
    "GPT-2": "the last position's own embedding does nothing, since its logits are left out by a label of -100, "
    "and labels are data",
    "BERT": f"{_TYPES}; the scale of the tied table holds while the padding's row is zero, which the head does not "
    "keep so (the search leaves that row as it is)",
    "BERT classifier": _TYPES,
    "RoBERTa": _TYPES,
    "ALBERT": _TYPES,
    "ELECTRA": _TYPES,
    "OPT": "rows of positions that are never met, the last position as in GPT-2, and the scale of a tied table with a "
    "row of padding as in BERT",
    "DLRM": "each pair's product has one factor in the rules, whichever tables it is of",
    "LSTM, two layers, both directions": "the last output of the backward direction is its first step, whose recurrent "
    "weight meets a state of zeros and does nothing",
    "T5": "rows of relative positions that are never met",
    "Gemma": "its norms multiply by 1 + γ, so what is conserved against the next layer is Σ(1 + γ)², of no kind here",
    "FNO": "no rule for complex products",
    "GAT": "the last outputs may be mixed by 11ᵀ, which adds the same to all classes, and their attention's entries "
    "the other way: of no kind here (overlooked by hand)",
    "Mixtral": "a unit has one factor for all experts in the rules, since their rows are sorted into one tensor",
}
