# The C structures of the core, without their layout: what _fast.pxd and its clients need to know of them.

cdef extern from *:
    # Opaque: their layout is the package's own business.
    ctypedef struct zp_body "void":
        pass
    ctypedef struct zp_journal "void":
        pass
    ctypedef struct zp_history "void":
        pass
    ctypedef struct zp_log "void":
        pass
    ctypedef struct zp_endpoint "void":
        pass
