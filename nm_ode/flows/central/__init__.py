"""The central flow: what descent follows on average at the edge of stability."""
