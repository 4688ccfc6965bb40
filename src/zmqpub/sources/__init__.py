"""Where a publisher that stands alone gets its events from; each source is a module of its own and loads what it needs."""
