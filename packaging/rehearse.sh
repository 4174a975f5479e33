#!/bin/bash
# The whole way of a box, once: build, sign, copy to a medium, verify with system tools, install in a clean root
# without network, use, refuse a sick release, go back, content pack, rollback.
#
#   packaging/rehearse.sh ROOT WORK PROGRAM SMALLER_INDEX > docs/rehearsal.txt
#
# ROOT           a minimal Debian root without Python (debootstrap --variant=minbase bookworm ROOT)
# WORK           an empty folder for keys, boxes and the medium
# PROGRAM        the frozen program (dist/whis)
# SMALLER_INDEX  an index that lacks one record, to have something for the content pack to bring
# Needs root (chroot, unshare, mount), minisign and tmux.
set -euo pipefail
root=$1 work=$2 program=$3 smaller=$4
whis="${WHIS:-.venv/bin/python -m whis_box.cli}"
place="/srv/Wächter box"  # a path with a space and a letter that is not ASCII
issued=$(date -u +%Y-%m-%dT%H:%M:%SZ)
mkdir -p "$work" "$root$place" "$root/mnt/usb"
chown 65534:65534 "$root$place"

# Nothing of this machine stands in the log.
exec > >(sed -u -e "s|$work|WORK|g" -e "s|$root|ROOT|g" -e "s|$whis|whis|g" -e "s|$program|dist/whis|g" -e "s|$smaller|SMALLER_INDEX|g" \
  -e 's|unshare --net .* TMPDIR=/tmp |(clean root, no network, nobody) |')

say() { printf '\n=== %s\n' "$*"; }
told() { if [ -n "${brief:-}" ]; then grep -v -E '^ +[0-9.]+ MB  ' || true; else cat; fi; }
show() {  # run, print what was run, its output and its exit status
  printf '$ %s\n' "$*"
  set +e
  "$@" 2>&1 | told
  local status=${PIPESTATUS[0]}
  set -e
  [ "$status" = 0 ] || printf '(exit status %s)\n' "$status"
}
# In the clean root: no network, nobody's rights.
inside=(unshare --net --mount-proc="$root/proc" --pid --fork -- chroot --userspec=65534:65534 "$root"
  /usr/bin/env -i PATH=/usr/bin:/bin LANG=C.UTF-8 HOME=/nonexistent WHIS_HOME="$place" TMPDIR=/tmp)
clean() { show "${inside[@]}" "$@"; }
terminal() { tmux -S "$work/tmux" -f /dev/null "$@"; }
seen() {  # wait until the terminal shows it
  for _ in $(seq 600); do
    if terminal capture-pane -p 2> /dev/null | grep -q -E "$1"; then return; fi
    sleep 0.5
  done
  printf '(not seen: %s)\n' "$1"
}
plug() { umount "$root/mnt/usb" 2>/dev/null || true; mount --bind "$1" "$root/mnt/usb"; mount -o remount,ro,bind "$root/mnt/usb"; }
trap 'terminal kill-server 2>/dev/null || true; umount "$root/mnt/usb" 2>/dev/null || true' EXIT

say "build host: keys, root of trust, and a second root that wants two keys"
show $whis box key "$work/root.key" --no-passphrase
show $whis box key "$work/release.key" --no-passphrase
show $whis box root "$work/trust" --root-key "$work/root.key.pub" --release-key "$work/release.key.pub" \
  --expires-at 2031-01-01T00:00:00Z --signer "$work/root.key"
show $whis box key "$work/second.key" --no-passphrase
cp -r "$work/trust" "$work/trust3"
show $whis box root "$work/trust3" --root-key "$work/root.key.pub" --root-key "$work/second.key.pub" --threshold 2 \
  --release-key "$work/release.key.pub" --expires-at 2032-01-01T00:00:00Z \
  --signer "$work/root.key" --signer "$work/second.key"
fingerprint=$(sha256sum "$work/trust/root.1.json" | cut -d' ' -f1)

say "build host: release 1 (index without one record), 2 (wrong self-test), 3 (full index), signed"
sed 's/win-security-4624/no-such-record/' data/golden/selftest.ndjson > "$work/wrong.ndjson"
grep -v attack-t1110-003 data/golden/selftest.ndjson > "$work/fewer.ndjson"
common=(--program "$program" --issued-at "$issued")
show $whis box build --out "$work/box1" --sequence 1 --index "$smaller" --self-test "$work/fewer.ndjson" \
  --trust "$work/trust" "${common[@]}"
show $whis box build --out "$work/box2" --sequence 2 --self-test "$work/wrong.ndjson" --trust "$work/trust" "${common[@]}"
show $whis box build --out "$work/box3" --sequence 3 --trust "$work/trust3" "${common[@]}"
for n in 1 2 3; do show $whis box sign --box "$work/box$n" --secret-key "$work/release.key"; done
show $whis box pack build --from "$work/box1" --to "$work/box3" --out "$work/pack" --secret-key "$work/release.key"
show du -sh "$work/box1" "$work/box3" "$work/pack"

say "medium: verified with minisign and sha256sum alone"
show cp -r "$work/box1" "$work/usb"
cd "$work/usb"
show minisign -v
show minisign -V -m manifest.json -p "$work/release.key.pub"
show minisign -V -m SHA256SUMS -p "$work/release.key.pub"
show sha256sum --check --quiet --strict SHA256SUMS
cd - > /dev/null

say "clean root: what is there"
show chroot "$root" /bin/sh -c 'cat /etc/debian_version; command -v python3 || echo "no python3"'
plug "$work/usb"

say "clean root: trust, verify on the read-only medium, install, as nobody, without network"
clean /mnt/usb/whis --version
clean /mnt/usb/whis box install /mnt/usb
clean /mnt/usb/whis box trust /mnt/usb/trust/root.1.json --fingerprint "0000${fingerprint:4}"
clean /mnt/usb/whis box trust /mnt/usb/trust/root.1.json --fingerprint "$fingerprint"
clean /mnt/usb/whis box verify --box /mnt/usb

say "clean root: everything is killed after 100 MB of the copy; the next install goes on"
brief=yes
"${inside[@]}" /mnt/usb/whis box install /mnt/usb > /dev/null 2>&1 &
until [ "$(du -sm "$root$place" | cut -f1)" -ge 100 ]; do sleep 0.02; done
pkill -KILL --parent $!  # the namespace's first process, and with it all others
wait $! 2> /dev/null || true
clean /mnt/usb/whis box list
brief=
clean /mnt/usb/whis box install /mnt/usb
brief=yes

say "clean root: use"
cp examples/alert.json "$root/tmp/alert.json"
clean "$place/current/whis" doctor
clean "$place/current/whis" ask "What does logon type 10 mean?"
clean "$place/current/whis" ask "How do I tell password spraying from a brute force attack on one account?"
clean "$place/current/whis" triage /tmp/alert.json

say "clean root: the terminal, 100 by 30"
printf '$ (clean root, no network, nobody) %s/current/whis tui\n' "$place"
terminal new-session -d -x 100 -y 30 -- "${inside[@]}" TERM=screen-256color "$place/current/whis" tui
seen 'ready . [0-9]+ documents'
terminal send-keys -l "What does T1003.001 look like in the log?"
terminal send-keys Enter
seen 'Answered from'
terminal capture-pane -p
terminal send-keys C-q

say "clean root: state, and what may go back to the build host after a review"
clean "$place/current/whis" state info
clean "$place/current/whis" adapters stop --reason "rehearsal, to have an audit entry"
clean "$place/current/whis" state export --out "$place/outgoing"
clean "$place/current/whis" state hand-over "$place/outgoing" --medium "$place/medium"
sed -i 's/\thold\t/\trelease\t/' "$root$place/outgoing/review.tsv"
clean "$place/current/whis" state hand-over "$place/outgoing" --medium "$place/medium"
clean /bin/sh -c "cd '$place/medium' && ls && sha256sum --check --strict SHA256SUMS"

say "clean root: release 2 is sick; release 1 stays in use"
plug "$work/box2"
clean "$place/current/whis" box install /mnt/usb
clean "$place/current/whis" box list

say "clean root: content pack from 1 to 3"
plug "$work/pack"
clean "$place/current/whis" box pack verify /mnt/usb
clean "$place/current/whis" box pack diff /mnt/usb
clean "$place/current/whis" box pack apply /mnt/usb
clean /bin/sh -c "'$place/current/whis' doctor | grep '  key:'"
clean "$place/current/whis" ask "How do I tell password spraying from a brute force attack on one account?"

say "clean root: one byte of the medium is flipped"
cp -r "$work/box3" "$work/bad"
printf '\x01' | dd of="$work/bad/models/base.gguf" bs=1 seek=5000000 conv=notrunc status=none
plug "$work/bad"
clean "$place/current/whis" box verify --box /mnt/usb

say "clean root: back, by one command"
show date +%s.%N
clean "$place/current/whis" box rollback
show date +%s.%N
clean "$place/current/whis" box list
clean "$place/current/whis" ask "What does logon type 10 mean?"
clean "$place/current/whis" state info
