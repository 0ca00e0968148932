"""Who is turned away when the pool is full."""
