#!/bin/sh
# Ask, search and triage with curl. WHIS_URL defaults to loopback; set WHIS_KEY where the server wants a key.
set -eu
url=${WHIS_URL:-http://127.0.0.1:8088}
here=$(dirname "$0")

call() { curl --silent --show-error --fail-with-body ${WHIS_KEY:+-H "Authorization: Bearer $WHIS_KEY"} "$@"; }

call "$url/v1/ask" -d '{"question": "What does logon type 10 mean?"}'
echo
call "$url/v1/search" -d '{"query": "T1003.001", "top_k": 1}'
echo
# A job: accepted at once, then waited for. The alert's own id makes a retry safe.
location=$(call --output /dev/null --dump-header - -H 'Prefer: respond-async' \
  "$url/v1/triage" --data-binary "@$here/../alert.json" | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
call "$url$location?wait=60"
echo
