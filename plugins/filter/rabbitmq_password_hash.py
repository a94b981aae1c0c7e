# Copyright (c) 2026 The django-background-fleet authors
# MIT License (see LICENSE)
"""The form in which RabbitMQ keeps a password."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: rabbitmq_password_hash
short_description: Hash a password for RabbitMQ's definitions
version_added: "0.1.0"
author:
  - The django-background-fleet authors
description:
  - Hashes a password as C(rabbit_password_hashing_sha256) does, which is all the broker stores.
  - The same password and user make the same hash, so that a second run changes nothing.
positional: user
options:
  _input:
    description: The password, any text.
    type: str
    required: true
  user:
    description: The user, any text. Salts the hash.
    type: str
    required: true
"""

EXAMPLES = r"""
password_hash: "{{ rabbitmq_password | rabbitmq_password_hash('shop') }}"
"""

RETURN = r"""
_value:
  description: The salt and the hash, in Base64.
  type: str
"""


def rabbitmq_password_hash(password: str, user: str) -> str:
    """Return the salt and the hash of a password, in Base64.

    Args:
        password: any text.
        user: any text; the same user and password make the same hash.

    Raises:
        AnsibleFilterError: the password is empty, which RabbitMQ would take for "no password".
    """
    if password is None or str(password) == "":
        raise AnsibleFilterError("rabbitmq_password_hash: the password is empty")
    salt = hashlib.sha256(str(user).encode()).digest()[:4]
    return base64.b64encode(salt + hashlib.sha256(salt + str(password).encode()).digest()).decode()


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Return the filters of this file."""
        return {"rabbitmq_password_hash": rabbitmq_password_hash}
