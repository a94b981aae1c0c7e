# shellcheck shell=bash
# Sourced by the commands in bin/: what a fresh machine needs before Ansible can run here.

# Stop at a failure inside $(...) as well.
shopt -s inherit_errexit

ROOT=$(cd "${BASH_SOURCE[0]%/*}/../.." && pwd)
VENV=$ROOT/.venv
CACHE=$ROOT/.cache

# Ansible reads its configuration from the project wherever the command is called from.
export ANSIBLE_CONFIG=$ROOT/ansible.cfg
export PATH=$VENV/bin:$PATH:/usr/sbin:/sbin
# Else each start of Ansible compiles it and the bundle's plugins again, which takes as long as a small run.
unset PYTHONDONTWRITEBYTECODE

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# quietly LOGFILE COMMAND...: run with the output in LOGFILE, whose end is shown on failure.
quietly() {
  local log=$1
  shift
  mkdir -p "${log%/*}"
  if "$@" >>"$log" 2>&1 </dev/null; then return 0; fi
  tail -n 20 "$log" >&2
  printf '%s failed, the whole output is in %s\n' "$1" "$log" >&2
  return 1
}

may_install() {
  [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null
}

# apt_install PACKAGE...: as root on a Debian-like machine; elsewhere say what to install.
apt_install() {
  may_install || die "Please install the package(s) $* as root, then run this command again."
  echo "Installing $*"
  export DEBIAN_FRONTEND=noninteractive
  quietly "$CACHE/apt.log" apt-get update || return 1
  quietly "$CACHE/apt.log" apt-get install --yes --no-install-recommends "$@"
}

find_python() {
  local python
  for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$python"
      return 0
    fi
  done
  return 1
}

# What the environment was made from. The path belongs to it: an environment cannot be moved.
venv_stamp() {
  sha256sum <"$ROOT/requirements/controller.txt"
  "$VENV/bin/python" --version
  echo "$ROOT"
}

# Make .venv hold exactly requirements/controller.txt.
ensure_venv() {
  local python uv_pin
  if [[ -x $VENV/bin/python && -f $VENV/stamp && $(venv_stamp) == "$(<"$VENV/stamp")" ]]; then
    return 0
  fi
  python=$(find_python) || die "Python 3.11 or newer is needed, please install it" \
    "(this machine has: $(python3 --version 2>/dev/null || echo none))."
  if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    apt_install python3-venv
  fi
  echo "Making the Python environment .venv"
  quietly "$CACHE/venv.log" "$python" -m venv --clear "$VENV"
  # pip installs only uv, at its pinned version; uv is ten times as fast with the rest.
  uv_pin=$VENV/uv.txt
  awk '/^uv==/ { uv = 1 } uv { print } uv && !/\\$/ { exit }' \
    "$ROOT/requirements/controller.txt" >"$uv_pin"
  quietly "$CACHE/venv.log" "$VENV/bin/python" -m pip install --require-hashes -r "$uv_pin"
  UV_SYSTEM_CERTS=true quietly "$CACHE/venv.log" "$VENV/bin/uv" pip sync \
    --python "$VENV/bin/python" --require-hashes "$ROOT/requirements/controller.txt"
  # All but the collections, most of which nobody uses; uv leaves this to each first start.
  quietly "$CACHE/venv.log" "$VENV/bin/python" -m compileall -q -j 0 -x /ansible_collections/ \
    "$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
  venv_stamp >"$VENV/stamp"
}

docker_answers() {
  docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

# Each host's systemd takes about seven inotify instances from the machine's common limit.
raise_inotify_limits() {
  [[ $EUID -eq 0 ]] || return 0
  local limit name value
  for limit in max_user_instances=8192 max_user_watches=524288; do
    name=/proc/sys/fs/inotify/${limit%=*}
    value=${limit#*=}
    if [[ $(<"$name") -lt $value ]]; then echo "$value" >"$name"; fi
  done
}

start_docker() {
  local log=/var/log/dockerd.log engine='' second
  if [[ -d /run/systemd/system ]]; then
    systemctl start docker
  else
    echo "Starting the Docker engine (log: $log)"
    # An engine that was killed leaves pid files; another process may have its number by now.
    if ! grep -qsxE 'dockerd|containerd' /proc/[0-9]*/comm; then
      rm -f /var/run/docker.pid /var/run/docker/containerd/containerd.pid
    fi
    setsid nohup dockerd >>"$log" 2>&1 </dev/null &
    engine=$!
  fi
  for ((second = 0; second < 60; second++)); do
    if docker_answers; then return 0; fi
    if [[ -n $engine ]] && ! kill -0 "$engine" 2>/dev/null; then return 1; fi
    sleep 1
  done
  return 1
}

# Make sure that a Docker engine answers, by installing and starting it where that is allowed.
ensure_docker() {
  if ! docker_answers; then
    if [[ $(docker version 2>&1) == *"permission denied"* ]]; then
      die "Docker refuses user $(id -un): please add the user to the group docker and log in again."
    fi
    may_install || die "No Docker engine answers: please install and start one" \
      "(package docker.io), then run this command again."
    if ! command -v dockerd >/dev/null; then
      # Newer releases ship the client apart; without apparmor no container starts where the
      # kernel has it enabled.
      apt_install docker.io iptables apparmor
      command -v docker >/dev/null || apt_install docker-cli
    fi
    docker_answers || start_docker || die "The Docker engine does not start:" \
      "please read /var/log/dockerd.log, or start an engine yourself and run this command again."
  fi
  raise_inotify_limits
}

# The browser of the tests is the distribution's own: it comes over the same way as every other package.
ensure_browser() {
  if [[ -x /usr/bin/chromium ]]; then return 0; fi
  # Without a font a page has no letters.
  apt_install chromium fonts-dejavu-core
}
