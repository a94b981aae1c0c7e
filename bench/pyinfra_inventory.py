"""The hosts for pyinfra, each with what it shall have; bench/contenders.py wrote them."""

import json
import os
from pathlib import Path

hosts = [tuple(host) for host in json.loads(Path(os.environ["BENCH_DATA"]).read_text())]
