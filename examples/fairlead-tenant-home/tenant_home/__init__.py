"""Each tenant has a model server that it returns to."""
