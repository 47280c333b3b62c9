#!/usr/bin/env bash
# Makes the Debian package dist/techulus-agent_<version>_<architecture>.deb of the same parts as the bundle, for this machine's release of
# Debian or Ubuntu (the packages in it are for its Python). Its service is configured in /etc/techulus/agent.env. With $AGENT_BUNDLE it is
# made of that bundle.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

dist=${AGENT_DIST:-$PWD/dist}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
bundle=${AGENT_BUNDLE:-$(AGENT_DIST=$scratch deploy/bundle.sh)}
tar --extract --file "$bundle" --directory "$scratch"
parts=$scratch/$(basename "$bundle" .tar.gz) root=$scratch/root python=/usr/bin/python3
version=${parts##*-}
architecture=$(dpkg --print-architecture)
minor=$("$python" -c 'import sys; print(sys.version_info.minor)')

# Made in place and moved: what names its place is written anew.
where=/opt/techulus-agent
mkdir -p "$root/opt" "$root/DEBIAN"
"$python" -m venv --without-pip "$root$where"
pip=("$PWD/.venv/bin/python" -m pip --quiet --quiet --python "$root$where/bin/python" --disable-pip-version-check --no-input)
"${pip[@]}" install --no-compile --no-index --find-links "$parts/wheels" --require-hashes --requirement "$parts/requirements-agent.lock"
"${pip[@]}" install --no-compile --no-index --no-deps "$parts"/*.whl
grep --recursive --files-with-matches --binary-files=without-match --fixed-strings "$root" "$root$where" | xargs sed --in-place "s|$root||g"
"$python" -m compileall -q -s "$root" "$root$where/lib" || true  # templates of a library's that are no Python
! grep --recursive --quiet --fixed-strings "$root" "$root$where" || { echo "deb.sh: the package would name the folder it was made in" >&2; exit 1; }

install -D --mode 644 "$parts/techulus-agent.service" "$root/lib/systemd/system/techulus-agent.service"
install -D --mode 644 "$parts/caddy-admin.conf" "$root/lib/systemd/system/caddy.service.d/techulus-agent-admin.conf"
mkdir -p "$root"/usr/{bin,lib/sysctl.d,share/man/man1,share/bash-completion/completions,share/doc/techulus-agent}
ln -s "$where/bin/agent" "$root/usr/bin/agent"
echo 'net.ipv4.ip_forward = 1' >"$root/usr/lib/sysctl.d/60-techulus-agent.conf"
PYTHONPATH=$root$where/lib/python3.$minor/site-packages "$python" -m shell man | gzip -9n >"$root/usr/share/man/man1/agent.1.gz"
PYTHONPATH=$root$where/lib/python3.$minor/site-packages _AGENT_COMPLETE=source_bash "$python" -m shell >"$root/usr/share/bash-completion/completions/agent"
cp LICENSE "$root/usr/share/doc/techulus-agent/copyright"
cp deploy/caddy-resume.conf "$root/usr/share/doc/techulus-agent/"

cat >"$root/DEBIAN/control" <<CONTROL
Package: techulus-agent
Version: $version
Architecture: $architecture
Maintainer: The Techulus agent's authors <agent@techulus.invalid>
Section: admin
Priority: optional
Installed-Size: $(du --summarize --block-size=1024 "$root" | cut -f1)
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), podman (>= 4.3), netavark, crun, conmon, dnsmasq-base, wireguard-tools, iptables, nftables, iproute2, kmod, ca-certificates
Recommends: git, skopeo, buildah, slirp4netns
Suggests: caddy, wireguard-go
Description: node agent of a self-hosted container platform
 Runs on a server, asks a control plane what should run there, looks at what
 does, and closes the gap, one safe change at a time.
CONTROL
install --mode 755 deploy/debian/* "$root/DEBIAN/"
mkdir -p "$dist"
package=$dist/techulus-agent_${version}_$architecture.deb
dpkg-deb --root-owner-group --build -Zzstd "$root" "$package" >/dev/null
echo "$package"
