"""What a request did: its load while it is open, its tokens and times when it ends."""
