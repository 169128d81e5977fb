"""One addition is one file and one registration: an example of each."""
