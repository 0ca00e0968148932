"""Which endpoint serves a request: filters, then weighted scorers, then a picker. Plain functions, no I/O, no await."""
