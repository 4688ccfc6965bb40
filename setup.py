"""The compiled part of the build; everything else is in pyproject.toml.

One environment switch per mode: ZMQPUB_DEBUG=1 (no optimization, debug information), ZMQPUB_SANITIZE=address,undefined,
ZMQPUB_TRACE=1 (line tracing for coverage), ZMQPUB_WERROR=1 (C warnings are errors; CI sets it). Each mode has a
directory of its own under build/, so that none picks up another's objects.
"""

import os
import sys

import zmq
from Cython.Build import cythonize
from setuptools import Extension, setup

C = "src/zmqpub/_c"
CORE = [
    "body",
    "channel",
    "crc32c",
    "endpoint",
    "epochs",
    "flow",
    "fork",
    "frames",
    "history",
    "inbox",
    "journal",
    "journal_file",
    "journal_reader",
    "journal_records",
    "journal_recovery",
    "journal_sync",
    "listener",
    "log",
    "messages",
    "notification",
    "peers",
    "receiver",
    "receiving",
    "recognize",
    "silence",
    "sockets",
    "stream",
    "zmqapi",
]
REPLAY = ["replay", "replay_answers", "replay_clients", "replay_range", "replay_request", "snapshots"]
SHA256 = ["sha256", "sha256_arm", "sha256_portable", "sha256_x86"]

debug = os.environ.get("ZMQPUB_DEBUG") == "1"
trace = os.environ.get("ZMQPUB_TRACE") == "1"
sanitize = os.environ.get("ZMQPUB_SANITIZE", "")
strict = os.environ.get("ZMQPUB_WERROR") == "1"

modes = {"debug": debug, "trace": trace, "sanitize-" + sanitize.replace(",", "-"): bool(sanitize), "strict": strict}
build_base = "build/" + ("-".join(name for name, wanted in modes.items() if wanted) or "release")

compile_args = ["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra"]
link_args = ["-lpthread"] + (["-ldl"] if sys.platform == "linux" else [])
compile_args += ["-O0", "-g"] if debug else ["-O3", "-fno-plt"] if sys.platform == "linux" else ["-O3"]
if strict:
    compile_args += ["-Werror"]
if sanitize:
    flags = [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer", "-g", "-fno-sanitize-recover=undefined"]
    compile_args += flags
    link_args += flags

shared = {
    # zmq.get_includes() holds what pyzmq's .pxd files include; _c/zmq.h stands in for libzmq's header.
    "include_dirs": [C, *zmq.get_includes()],
    "extra_compile_args": compile_args,
    "extra_link_args": link_args,
    "depends": [f"{C}/{name}" for name in sorted(os.listdir(C)) if name.endswith(".h")],
    "define_macros": [("CYTHON_TRACE_NOGIL", "1")] if trace else [],
}

setup(
    options={"build": {"build_base": build_base}},
    ext_modules=cythonize(
        [
            Extension("zmqpub._build", ["src/zmqpub/_build.pyx"], **shared),
            Extension("zmqpub._fast", ["src/zmqpub/_fast.pyx", *(f"{C}/{name}.c" for name in CORE + REPLAY + SHA256)], **shared),
        ],
        build_dir=f"{build_base}/cython",
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "initializedcheck": False,
            "cdivision": True,
            "embedsignature": True,
            "linetrace": trace,
        },
    ),
)
