"""Where a publisher that stands alone gets its events from: one module a source, which loads what it needs."""
