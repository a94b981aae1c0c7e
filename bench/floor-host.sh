# shellcheck shell=sh
# Runs on a host, followed by what bench/contenders.py writes for it: the values, then one line for each thing.
# It comes on standard input, which no command may read. Says what was changed and what is still due:
# "ship TREE ARCHIVE", "switch", "restart UNIT", "start UNIT", "reload".
set -eu
export DEBIAN_FRONTEND=noninteractive

# What is there, in the words of $wanted: three processes or so for everything.
look() {
  # shellcheck disable=SC2154,SC2086
  {
    dpkg-query --show --showformat '${Package} ${db:Status-Status}\n' $packages
    getent passwd "$user" | cut -d : -f 1,6,7
    stat --format '%n %U %G %a' $directories $files
    sha256sum $files
    readlink $links "$current"
    stat --format %F "$release" "$environment"
    systemctl is-enabled $units
    systemctl is-active $units
  } 2>&1 || true
}

package() {
  dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null | grep -q '^installed' && return
  apt-get install --yes --no-install-recommends "$1" </dev/null >/dev/null 2>&1
  echo "changed package $1"
}

account() { # HOME SHELL
  [ "$(getent passwd "$user" | cut -d : -f 6,7)" = "$1:$2" ] && return
  useradd --system --user-group --home-dir "$1" --no-create-home --shell "$2" "$user"
  echo "changed user $user"
}

directory() { # PATH OWNER GROUP MODE
  [ "$(stat --format '%F %U %G %a' "$1" 2>/dev/null)" = "directory $2 $3 $4" ] && return
  install -d -o "$2" -g "$3" -m "$4" "$1"
  echo "changed $1"
}

file() { # PATH OWNER GROUP MODE SUM DUE... <content in base64
  path=$1 owner=$2 group=$3 mode=$4 sum=$5
  shift 5
  [ "$(stat --format '%U %G %a' "$path" 2>/dev/null)" = "$owner $group $mode" ] &&
    [ "$(sha256sum <"$path")" = "$sum  -" ] && return
  base64 -d >"$path.new"
  chown "$owner:$group" "$path.new"
  chmod "$mode" "$path.new"
  mv -T "$path.new" "$path"
  printf '%s\n' "changed $path" "$@"
}

link() { # PATH TARGET DUE...
  [ "$(readlink "$1")" = "$2" ] && return
  ln -sfn "$2" "$1.new"
  mv -T "$1.new" "$1"
  printf '%s\n' "changed $1" "$3"
}

tree() { # PATH ARCHIVE
  [ -d "$1" ] || echo "ship $1 $2"
}

static() { # COMMAND...
  [ ! -d "$release" ] || [ -e "$release/static_root/staticfiles.json" ] && return
  STACK_RELEASE=$release "$@" </dev/null >/dev/null 2>&1
  echo "changed static files"
}

release() { # DUE...
  [ "$(readlink "$current")" = "$release" ] || printf '%s\n' "switch" "$@"
}

unit() { # NAME ENABLED ACTIVE
  [ "$(systemctl is-enabled "$1" 2>/dev/null) $(systemctl is-active "$1")" = "$2 $3" ] || echo "start $1"
}

# switch RESTARTED...: the second call, once all hosts are ready and the database is migrated.
switch() {
  # shellcheck disable=SC2154,SC2086
  {
    ln -sfn "$release" "$current.new"
    mv -T "$current.new" "$current"
    systemctl daemon-reload
    systemctl enable --quiet $units
    [ $# -eq 0 ] || systemctl restart "$@"
    systemctl start $units
  }
}
