"""Why what is missed is missed, by network: for the table."""

_MEAN = (
    "what a mean is subtracted from may be mixed by 1 + t·11ᵀ, which adds the same to all, and what reads it by the "
    "inverse: of no kind here"
)

MISSED: dict[str, str] = {
    "GPT-2": "the last position's own embedding does nothing, since its logits are left out by a label of -100, "
    "and labels are data",
    "BERT": "the scale of the tied table holds while the padding's row is zero, which the head does not "
    "keep so (the search leaves that row as it is)",
    "RoBERTa": "rows of positions that are never met, since positions are counted from the padding's number on",
    "ELECTRA": _MEAN,
    "OPT": "rows of positions that are never met, the last position as in GPT-2, and the scale of a tied table with a "
    "row of padding as in BERT",
    "T5": "rows of relative positions that are never met",
    "Gemma": "its norms multiply by 1 + γ, so what is conserved against the next layer is Σ(1 + γ)², of no kind here",
    "GAT": "the last outputs may be mixed by 11ᵀ, which adds the same to all classes, and their attention's entries "
    "the other way: of no kind here (overlooked by hand)",
    "Mixtral": "a unit has one factor for all experts in the rules, since their rows are sorted into one tensor",
}
