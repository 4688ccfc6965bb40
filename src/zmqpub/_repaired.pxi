# Included by _fast.pyx: typed notifications of blocks that a node was asked for, in place of messages that were lost.


def repaired_block_hash(str address not None, bytes block_hash not None, uint32_t counter):
    """The HashBlock of a block, 32 bytes in display order."""
    cdef zp_entry e
    if len(block_hash) != 32:
        raise ValueError(f"a hash has 32 bytes, not {len(block_hash)}")
    memset(&e, 0, sizeof(e))
    e.topic = ZP_HASHBLOCK
    e.counter = counter
    e.length = 32
    memcpy(e.small, PyBytes_AS_STRING(block_hash), 32)
    return _received(&e, address, True)


def repaired_block(str address not None, Block block not None, uint32_t counter):
    """The RawBlock of a block; it shares the block's memory."""
    cdef zp_entry e
    memset(&e, 0, sizeof(e))
    e.topic = ZP_RAWBLOCK
    e.counter = counter
    e.flags = ZP_HAS_BODY
    e.body = block.body
    zp_body_ref(block.body) # goes over to the notification
    return _received(&e, address, True)
