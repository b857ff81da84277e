"""Lets the official WASI test suite (https://github.com/WebAssembly/wasi-testsuite) run wasmhost.

The suite's components are on its branch prod/testsuite-base. There, with Python 3.12 and `requests`:

    WASMHOST=/path/to/wasmhost ./run-tests -r /path/to/this/file

126 of 127 pass. `http-request` doesn't: it sets the target `a/b/c`, without a slash, which wasmtime refuses.
"""

import os
import subprocess
from pathlib import Path

WASMHOST = os.getenv("WASMHOST", "wasmhost")


def get_name():
    return "wasmhost"


def get_version():
    version = subprocess.run([WASMHOST, "--version"], encoding="UTF-8", capture_output=True, check=True)
    return version.stdout.split()[1]


def get_wasi_versions():
    return ["wasm32-wasip1", "wasm32-wasip3"]


def get_wasi_worlds():
    return ["wasi:cli/command", "wasi:http/service"]


def get_timeout_seconds():
    return 30.0


def compute_argv(test_path, args_env_root, proposals, wasi_world, wasi_version):
    args, env, root = args_env_root
    argv = [WASMHOST, "run", test_path]
    for name, value in env.items():
        argv += ["--env", f"{name}={value}"]
    if root:
        remove_links(root)
        argv += ["--dir", f"{root}::/"]
    # A test that only makes a socket and reads its properties needs no grant, and has no such proposal.
    if "sockets" in proposals or "http" in proposals:
        argv += ["--network"]
    if wasi_world == "wasi:http/service":
        argv += ["--listen", "127.0.0.1:0"]
        compile_first(argv)
    return argv + (["--", *args] if args else [])


def remove_links(root):
    """The suite removes what its tests leave, but for symbolic links, which filesystem-read-directory then finds."""
    for file in Path(root).glob("**/*.cleanup"):
        if file.is_symlink():
            file.unlink()


def compile_first(argv):
    """The suite expects an address in the first line, where a component that is compiled for long has one before it."""
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="UTF-8") as host:
        any("http://" in line for line in host.stderr)
        host.terminate()
        host.stderr.read()
