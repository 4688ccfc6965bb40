"""The compiled core: blocks, transactions, double SHA-256, and the engine that carries events to ZeroMQ.

The work is done by small C files under ``_c/``, each with one purpose; here they get their Python face. Hashes are
32 bytes in display order (reversed), as on the wire, unless a function says otherwise.
"""

import atexit
import mmap
import os
import time
import weakref

cimport cython

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_ND, PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer,
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport nanosleep, timespec

from zmq.backend.cython._zmq cimport Context

from zmqpub._native cimport *

import zmq.backend.cython._zmq as _pyzmq

from zmqpub.errors import BindError, ClosedError, ConnectError, DecodeError, ForkedError, JournalError, UnsupportedError
from zmqpub.primitives import BlockHeader, TxIn, TxOut
from zmqpub.stats import ReceiverStats, SourceStats
from zmqpub.wire import SequenceLabel, Topic


# ---- import: the libzmq of pyzmq, the SHA-256 of this machine ----

cdef int _prepare() except -1:
    cdef const char *problem = zp_zmq_load(os.fsencode(_pyzmq.__file__))
    if problem != NULL:
        raise UnsupportedError(f"cannot reach the libzmq that pyzmq loaded ({_pyzmq.__file__}): {problem.decode()}")
    wanted = os.environ.get("ZMQPUB_SHA256", "")
    cdef int failed = zp_sha256_select(wanted.encode())
    if failed:
        reason = {-1: "there is no such backend", -2: "this machine cannot run it", -3: "its self-test failed"}[failed]
        raise UnsupportedError(f"ZMQPUB_SHA256={wanted}: {reason}; available: {', '.join(sha256_backends())}")
    if zp_fork_watch():
        raise MemoryError
    return 0


def sha256_backends():
    """The names of the SHA-256 implementations that this machine can run, the fastest first."""
    names = []
    while zp_sha256_available(len(names)) != NULL:
        names.append((<bytes>zp_sha256_available(len(names))).decode())
    return tuple(names)


def sha256_backend():
    """The SHA-256 implementation in use: ``sha-ni``, ``armv8`` or ``portable`` (``ZMQPUB_SHA256`` forces one)."""
    return zp_sha256_backend().decode()


def sha256d(data):
    """SHA-256 of the SHA-256 of ``data`` (any buffer): 32 bytes in digest order, not reversed."""
    cdef Py_buffer view
    cdef uint8_t digest[32]
    if type(data) is bytes:
        zp_sha256d(digest, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    else:
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        zp_sha256d(digest, <const uint8_t *>view.buf, view.len)
        PyBuffer_Release(&view)
    return PyBytes_FromStringAndSize(<char *>digest, 32)


cdef void hash_message(uint8_t *out, const uint8_t *data, size_t length) noexcept nogil:
    zp_sha256d(out, data, length)


cdef void hash_pairs(uint8_t *out, const uint8_t *data, size_t count) noexcept nogil:
    zp_sha256d_pairs(out, data, count)


include "_bodies.pxi"
include "_engine.pxi"
include "_replay.pxi"
include "_history.pxi"
include "_notifications.pxi"
include "_batch.pxi"
include "_receiver.pxi"
include "_channel.pxi"
include "_repaired.pxi"

_prepare()
