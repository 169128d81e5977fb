"""What benchmarks/pages.py writes into the pages."""
