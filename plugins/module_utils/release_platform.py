# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""Say what decides whether an environment that was built elsewhere runs here."""

from __future__ import annotations

import subprocess

# Bytecode and extensions depend on these, wheels are chosen by them. An interpreter of the same
# version that was merely compiled again, as for a security update, is the same platform.
PLATFORM = """
import platform, sysconfig
print(platform.python_version(), sysconfig.get_config_var("SOABI"), platform.machine(),
      *platform.libc_ver())
"""


def platform_of(python: str) -> str:
    """Return an interpreter's platform, such as "3.11.2 cpython-311-x86_64-… x86_64 glibc 2.36".

    Raises:
        OSError: there is no such interpreter.
        subprocess.CalledProcessError: it does not run.
    """
    done = subprocess.run(  # noqa: S603
        [python, "-I", "-c", PLATFORM], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
