"""Why what is missed is missed, by network: for the table."""

MISSED: dict[str, str] = {
    "GPT-2": "the last position's own embedding does nothing since the loss ignores its logits, by a label of "
    "-100, and labels are data",
    "FNO": "no rule for complex products",
    "Mixtral": "its grouped product has no float64; its configuration can choose another",
}
