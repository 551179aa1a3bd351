#!/usr/bin/env bash
# Makes the development certificates of this directory anew. Needs openssl alone.
#
#   ca.pem             the authority to give to clients:  curl --cacert certs/ca.pem https://localhost:8443/
#   localhost.pem      certificate for localhost, *.localhost, 127.0.0.1 and ::1 (ECDSA P-256)
#   localhost-key.pem  its key
#
# The authority's own key is thrown away when the script ends, so nobody can sign anything else with it. The key of
# `localhost.pem` is public, it is in the repository: never use these files where it matters who answers.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Fixed dates instead of "from now on": a machine with a slow clock must not find them "not yet valid".
from=20250101000000Z
until=20450101000000Z

cat >"$work/openssl.cnf" <<CONFIG
[ca]
default_ca = development
[development]
dir = $work
database = $work/index.txt
new_certs_dir = $work
rand_serial = yes
default_md = sha256
policy = anything
copy_extensions = none
unique_subject = no
[anything]
organizationName = supplied
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = DNS:localhost, DNS:*.localhost, IP:127.0.0.1, IP:::1
CONFIG
: >"$work/index.txt"

# key NAME: an ECDSA P-256 key in PKCS#8.
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/$1-key.pem"; }
# sign NAME EXTENSIONS [OPTION…]: turns NAME.csr into NAME.pem.
sign() {
    local name=$1 extensions=$2
    shift 2
    openssl ca -batch -notext -config "$work/openssl.cnf" -extensions "$extensions" \
        -startdate "$from" -enddate "$until" -in "$work/$name.csr" -out "$work/$name.pem" "$@" 2>"$work/log" \
        || { cat "$work/log" >&2; exit 1; }
}

key ca
openssl req -new -key "$work/ca-key.pem" -subj "/O=Edgeward development/CN=Edgeward development CA" -out "$work/ca.csr"
sign ca authority -selfsign -keyfile "$work/ca-key.pem"

key localhost
openssl req -new -key "$work/localhost-key.pem" -subj "/O=Edgeward development/CN=localhost" -out "$work/localhost.csr"
sign localhost server -cert "$work/ca.pem" -keyfile "$work/ca-key.pem"

openssl verify -CAfile "$work/ca.pem" "$work/localhost.pem" >/dev/null
install -m 0644 "$work/ca.pem" "$work/localhost.pem" "$here/"
install -m 0600 "$work/localhost-key.pem" "$here/"
echo "wrote ca.pem, localhost.pem and localhost-key.pem in $here"
