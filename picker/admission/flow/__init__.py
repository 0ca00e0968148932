"""Flow control: requests queue by priority and flow until the pool has room for them."""
