#!/usr/bin/env bash
# Installs the agent as a service on a Debian or Ubuntu server, and upgrades it: run the newer bundle's installer. Run again with nothing
# new, it changes nothing. Asks nobody anything. `install.sh --help` tells its words and variables.
#
# What it makes:
#   /opt/techulus-agent/releases/<version>-<digest>   a virtual environment for each release; the two last ones are kept
#   /opt/techulus-agent/{current,previous}            links to releases; /opt/techulus-agent/bin is current/bin
#   /etc/systemd/system/techulus-agent.service, /etc/techulus/agent.env (0600), /etc/sysctl.d/60-techulus-agent.conf
#   a drop-in of Caddy's unit on a proxy, and another where nobody has configured Caddy
#   /usr/local/bin/agent, its manual page and its completion
# A release has a copy of this script (installer/), so that going back and uninstalling need no bundle.
set -euo pipefail
umask 022

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
readonly here
# shellcheck source=common.sh
source "$here/common.sh"
readonly patience_s=${AGENT_INSTALL_PATIENCE_S:-120}
# Debian's packages ask this file whether they may start their services; 101 says no.
readonly policy=/usr/sbin/policy-rc.d policy_mark='# of the installer of techulus-agent' pending=$top/.pending kept_env=$top/.agent.env kept_release=$top/.before
readonly caddy_memory=/var/lib/caddy/.config/caddy/autosave.json

# What an agent drives. (dnsmasq-base: without a service of its own.)
readonly packages=(
    podman netavark crun conmon dnsmasq-base wireguard-tools iptables nftables iproute2 kmod
    git skopeo buildah slirp4netns ca-certificates python3 python3-venv
)

usage() {
    cat <<'USAGE'
install.sh [--packages | --rollback | --uninstall [--purge] | --help]

  (nothing)      install, or upgrade to this bundle's release, and start the service
  --packages     only install the Debian packages
  --rollback     go back to the release before this one
  --uninstall    take the agent away; containers, the tunnel, /etc/techulus and /var/lib/techulus-agent stay
  --purge        with --uninstall: those too, with all volumes of the containers

Variables:
  CONTROL_PLANE_URL   https URL of the control plane; needed the first time
  REGISTRATION_TOKEN  token for this server; needed the first time, and forgotten once it is used
  IS_PROXY            true: a proxy, which also runs Caddy; fixed at registration
  LOGS_ENDPOINT       URL of VictoriaLogs
  TECHULUS_*          any option of the agent, as in its manual page
What is not given stays as an earlier run was told.
USAGE
}

is_true() { [[ ${1,,} =~ ^(true|1|yes|on)$ ]]; }
registered() { [[ -e $(data_dir)/config.json ]]; }

# --- what it was told --------------------------------------------------------------------------------------------------------------

check_given() {
    local name
    for name in CONTROL_PLANE_URL REGISTRATION_TOKEN IS_PROXY LOGS_ENDPOINT $(compgen -e TECHULUS_ || true); do
        [[ ! ${!name-} =~ [[:cntrl:]] ]] || fail "$name has a control character; nothing was changed"
    done
    [[ -z ${IS_PROXY-} || ${IS_PROXY,,} =~ ^(true|1|yes|on|false|0|no|off)$ ]] || fail "IS_PROXY is neither true nor false: $IS_PROXY"
    for name in CONTROL_PLANE_URL LOGS_ENDPOINT; do
        [[ -z ${!name-} || ${!name} =~ ^https?://[^/[:space:]]+ ]] || fail "$name is not an http or https URL; nothing was changed"
    done
    if [[ ${CONTROL_PLANE_URL-} == http://* ]] && ! is_true "${TECHULUS_ALLOW_HTTP-$(told TECHULUS_ALLOW_HTTP)}"; then
        [[ $CONTROL_PLANE_URL =~ ^http://(127\.|localhost|\[::1\]) ]] ||
            fail "$CONTROL_PLANE_URL has no TLS, and registration returns keys: use https, or TECHULUS_ALLOW_HTTP=true; nothing was changed"
    fi
    registered && return
    [[ -n ${CONTROL_PLANE_URL-}$(told TECHULUS_URL) ]] || fail "this server is not registered: give CONTROL_PLANE_URL; nothing was changed"
    [[ -n ${REGISTRATION_TOKEN-}$(told TECHULUS_TOKEN) ]] ||
        fail "this server is not registered: give REGISTRATION_TOKEN; nothing was changed"
}

is_proxy() {
    local kind
    kind=$(sed -n 's/.*"isProxy": *\(true\|false\).*/\1/p' "$(data_dir)/config.json" 2>/dev/null | head -1)
    is_true "${kind:-${IS_PROXY:-$(told TECHULUS_PROXY)}}"
}

# --- the parts -----------------------------------------------------------------------------------------------------------------------

check_system() {
    [[ $(id -u) == 0 ]] || fail "run it as root"
    local family
    family=$(. /etc/os-release 2>/dev/null && echo "${ID-} ${ID_LIKE-}")
    [[ " $family " == *" debian "* || " $family " == *" ubuntu "* ]] || fail "this is neither Debian nor Ubuntu: ${family:-no /etc/os-release}"
    if [[ $(dpkg-query --show --showformat '${db:Status-Status}' techulus-agent 2>/dev/null) == installed ]]; then
        fail "the Debian package techulus-agent is installed; upgrade with apt-get, or remove it first: apt-get remove techulus-agent"
    fi
    exec 9>/run/techulus-agent-install.lock
    flock --nonblock 9 || fail "another installation is under way"
}

install_packages() {
    local wanted=("${packages[@]}") missing
    if grep -qsxF "$policy_mark" "$policy"; then rm -f "$policy"; fi  # of an earlier run, which was killed
    is_proxy && wanted+=(caddy)
    kernel_has_wireguard || wanted+=(wireguard-go)
    mapfile -t missing < <(comm -23 <(printf '%s\n' "${wanted[@]}" | sort) \
        <(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null | sed -n 's/^installed //p' | sort -u))
    [[ ${#missing[@]} -gt 0 ]] || return 0
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l
    local apt=(apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3)
    "${apt[@]}" update >/dev/null || say "not every package list could be brought up to date; going on"
    # What they would start, this script and the agent start when it is configured.
    if [[ ! -e $policy ]]; then
        policy_is_ours=yes
        printf '#!/bin/sh\n%s\nexit 101\n' "$policy_mark" >"$policy"
        chmod 755 "$policy"
    fi
    "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null || fail "these could not be installed: ${missing[*]}; the service was not touched"
    forget_policy
}

forget_policy() { [[ $policy_is_ours == no ]] || rm -f "$policy"; policy_is_ours=no; }

kernel_has_wireguard() { [[ -d /sys/module/wireguard ]] || modprobe --dry-run --quiet wireguard 2>/dev/null; }

# The bundle's wheel; from a checkout of the project, one that is built for this.
find_wheel() {
    local found=("$here"/techulus_agent-*.whl)
    if [[ ! -e ${found[0]} ]]; then
        [[ -f $here/../pyproject.toml ]] || fail "there is no wheel beside this script: unpack the whole bundle"
        found=("$(AGENT_DIST=$scratch "$here/bundle.sh" --wheel)") || fail "the wheel could not be built; the service was not touched"
    fi
    [[ ${#found[@]} == 1 ]] || fail "there are several wheels beside this script: ${found[*]}"
    wheel=${found[0]}
    lock=$here/requirements-agent.lock
    [[ -f $lock ]] || fail "$lock is missing: unpack the whole bundle"
    local name=${wheel##*/techulus_agent-}
    release=$top/releases/${name%%-*}-$(cat "$wheel" "$lock" | sha256sum | cut -c1-12)
}

make_release() {
    # A complete one may have lost its Python: the distribution has been upgraded.
    [[ -e $release/.complete ]] && starts "$release" && return
    python3 -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or newer is needed (Debian 12, Ubuntu 24.04, or later); this is $(python3 --version 2>&1); the service was not touched"
    say "making ${release##*/}"
    [[ $(readlink "$top/current" || true) != "$release" ]] || note_change "$release"  # the agent that runs loses its files
    rm -rf "$release"
    mkdir -p "$top/releases"
    python3 -m venv --without-pip "$release"
    # Debian's own pip from outside: a release needs none, and making one would take as long as all the rest.
    local pip=(python3 "$(pip_wheel)/pip" --python "$release/bin/python" --quiet --disable-pip-version-check --no-input install)
    local needs
    needs=$(python3 --version | cat - "$lock" | sha256sum)
    if [[ $(cat "$top/current/.packages" 2>/dev/null) == "$needs" ]]; then
        # The release that runs has these very packages.
        cp -a "$top/current/lib/." "$release/lib/"
    # The bundle's own are enough where it was made for such a system; elsewhere the index has the same files' siblings.
    elif ! "${pip[@]}" --no-index --find-links "$here/wheels" --require-hashes --requirement "$lock" 2>"$scratch/offline"; then
        "${pip[@]}" --retries 3 --require-hashes --requirement "$lock" || {
            rm -rf "$release"
            fail "the Python packages could not be installed; the service was not touched"
        }
    fi
    "${pip[@]}" --no-index --no-deps --force-reinstall "$wheel"
    echo "$needs" >"$release/.packages"
    mkdir "$release/installer"
    cp "$here"/{install,uninstall,common}.sh "$here/$service" "$here"/caddy-{admin,resume}.conf "$release/installer/"
    "$release/bin/agent" --version >/dev/null || fail "the new release does not start; the service was not touched"
    sync --file-system "$release"  # after a power cut a complete one is complete
    touch "$release/.complete"
}

pip_wheel() {
    local found=(/usr/share/python-wheels/pip-*.whl)
    [[ -e ${found[-1]} ]] || fail "the package python3-pip-whl (of python3-venv) is not complete: there is no /usr/share/python-wheels/pip-*.whl"
    echo "${found[-1]}"
}

# What has changed since the service was last started well; kept in a file, too, since this run may be killed before it starts it.
note_change() {
    mkdir -p "$top"
    echo "$1" >>"$pending"
    changed+=("$1")
}

write_if_new() { # path mode; the content on stdin
    local fresh=$1.$$.new
    mkdir -p "$(dirname "$1")"
    (umask 077 && cat >"$fresh")
    chmod "$2" "$fresh"
    if cmp -s "$fresh" "$1" && [[ $(stat -c %a "$1") == "${2#0}" ]]; then
        rm -f "$fresh"
    else
        note_change "$1"
        mv -f "$fresh" "$1"
    fi
}

write_environment() {
    mkdir -p "$etc"
    chmod 700 "$etc"
    write_if_new "$env_file" 0600 < <(environment)
}

# What the service's file says already, with what is given now in its place.
environment() {
    local -A given=()
    local name line value
    for name in $(compgen -e TECHULUS_ || true); do given[$name]=${!name}; done
    unset 'given[TECHULUS_ENV_FILE]'
    [[ -z ${CONTROL_PLANE_URL-} ]] || given[TECHULUS_URL]=$CONTROL_PLANE_URL
    [[ -z ${LOGS_ENDPOINT-} ]] || given[TECHULUS_LOGS_ENDPOINT]=$LOGS_ENDPOINT
    [[ -z ${IS_PROXY-} ]] || given[TECHULUS_PROXY]=$(is_true "$IS_PROXY" && echo true || echo false)
    [[ -z ${REGISTRATION_TOKEN-} ]] || given[TECHULUS_TOKEN]=$REGISTRATION_TOKEN
    if registered; then given[TECHULUS_TOKEN]=; fi
    if [[ -f $env_file ]]; then
        while IFS= read -r line || [[ -n $line ]]; do
            name=${line%%=*}
            [[ $name =~ ^[A-Z0-9_]+$ && -v given[$name] ]] || echo "$line"
        done <"$env_file"
    else
        echo "# Environment variables of $service; each is an option of the agent, see agent(1)."
    fi
    for name in $(printf '%s\n' "${!given[@]}" | sort); do
        value=${given[$name]//\\/\\\\}
        [[ -z $value ]] || printf '%s="%s"\n' "$name" "${value//\"/\\\"}"
    done
}

write_files() {
    write_environment
    write_if_new "$sysctl" 0644 <<<'net.ipv4.ip_forward = 1'
    is_proxy || return 0
    write_if_new "$caddy_admin" 0644 <"$here/caddy-admin.conf"
    caddy_is_ours || return 0
    [[ -e $caddy_drop_in ]] || caddy_starts_anew=yes
    # What Caddy remembers of the package's own page would have port 80 for ever.
    if [[ ! -e $caddy_drop_in ]] && grep -qsF '"/usr/share/caddy"' "$caddy_memory"; then rm -f "$caddy_memory"; fi
    write_if_new "$caddy_drop_in" 0644 <"$here/caddy-resume.conf"
}

# Which release ran and what it was told when it was last started well. What a killed run has kept is what counts.
keep_what_ran() {
    [[ ! -e $pending ]] || return 0
    mkdir -p "$top"
    rm -f "$kept_env" "$kept_release"
    [[ ! -L $top/current ]] || ln -s "$(readlink "$top/current")" "$kept_release"
    # A server that is being registered has nothing to go back to: what it is told now is right, or is corrected by the next run.
    if [[ -f $env_file ]] && registered; then
        (umask 077 && cat "$env_file" >"$kept_env.new" && mv -f "$kept_env.new" "$kept_env")
    fi
}
# Systemd, or a person, may have brought it up since a run that was killed or has failed.
forget_what_came_well() {
    [[ -e $pending ]] && systemd_runs && systemctl --quiet is-active "$service" || return 0
    local since
    since=$(date -d "$(systemctl show --property ActiveEnterTimestamp --value "$service")" +%s 2>/dev/null) || return 0
    ((since <= $(stat -c %Y "$pending"))) || is_well
}
is_told_more() { [[ -f $kept_env ]] && ! cmp -s "$kept_env" "$env_file"; }
restore_environment() { ! is_told_more || { cp -p "$kept_env" "$env_file.new" && mv -f "$env_file.new" "$env_file"; }; }
is_well() { rm -f "$pending" "$kept_env" "$kept_release"; }
starts() { "$1/bin/agent" --version >/dev/null 2>&1; }

# Nobody has written a Caddyfile: it is missing, or the package's.
caddy_is_ours() {
    local file=/etc/caddy/Caddyfile
    [[ -e $file ]] || return 0
    dpkg-query --show --showformat '${Conffiles}\n' caddy 2>/dev/null | grep -q "^ $file $(md5sum <"$file" | cut -d' ' -f1)" && return
    say "$file has been changed, so Caddy keeps starting with it; the agent's routes are added beside it each time"
    return 1
}

link() { # path target
    [[ $(readlink "$1" 2>/dev/null) == "$2" ]] && return
    ln -sfn "$2" "$1.$$.new"
    mv -fT "$1.$$.new" "$1"
}

switch_to() { # a release: the agent's next start is of this one
    local before
    before=$(readlink "$top/current" || true)
    [[ $before == "$1" ]] || note_change "$1"
    [[ -z $before || $before == "$1" ]] || link "$top/previous" "$before"
    link "$top/current" "$1"
    write_if_new "$unit" 0644 <"$1/installer/$service"
    link "$top/bin" current/bin
    mkdir -p "$(dirname "$command")"
    link "$command" "$top/bin/agent"
}

write_help() {
    mkdir -p "$(dirname "$manual")" "$(dirname "$completion")"
    write_if_new "$manual" 0644 < <("$top/bin/agent" man)
    write_if_new "$completion" 0644 < <(_AGENT_COMPLETE=source_bash "$top/bin/agent")
}

start_service() {
    systemctl --quiet enable podman.socket "$service"
    if ! systemctl --quiet is-enabled "$service"; then
        say "the service could not be enabled"
        return 1
    fi
    if ! systemd_runs; then
        say "systemd does not run here: the service starts with it"
        return
    fi
    echo 1 2>/dev/null >/proc/sys/net/ipv4/ip_forward || say "forwarding could not be switched on; containers may not reach the network"
    systemctl daemon-reload
    systemctl --quiet start podman.socket
    # So that it starts as the drop-in says; a later edition of that can wait for its next start.
    if [[ $caddy_starts_anew == yes ]]; then systemctl try-restart caddy.service; fi
    if [[ ${#changed[@]} == 0 ]] && systemctl --quiet is-active "$service"; then
        say "nothing to do: ${release##*/} runs"
        return
    fi
    restart_service
}

restart_service() {
    systemctl --quiet reset-failed "$service" 2>/dev/null || true
    local deadline=$((SECONDS + patience_s)) failures before run
    run=$(systemctl show --property InvocationID --value "$service")
    systemctl restart --no-block "$service"
    before=$(systemctl show --property NRestarts --value "$service")
    # Active, and no longer the run that is being replaced.
    until [[ $(systemctl show --property InvocationID --value "$service") != "$run" ]] && systemctl --quiet is-active "$service"; do
        # A program that ends at once will not do better the next time.
        failures=$(($(systemctl show --property NRestarts --value "$service") - before))
        if ((SECONDS > deadline || failures > 1)); then
            journalctl --quiet --no-pager --lines 15 --unit "$service" >&2 || true
            return 1
        fi
        sleep 0.5
    done
    say "running: $(systemctl show --property StatusText --value "$service")"
}

forget_token() {
    registered || return 0
    REGISTRATION_TOKEN='' write_environment
}

prune_releases() {
    local one
    for one in "$top"/releases/*; do
        [[ $one == "$(readlink "$top/current")" || $one == "$(readlink "$top/previous" || true)" ]] || rm -rf "$one"
    done
}

# --- what can be asked for -----------------------------------------------------------------------------------------------------------

install_agent() {
    local before older
    older=$(readlink "$top/previous" || true)
    find_wheel
    install_packages
    forget_what_came_well
    keep_what_ran
    before=$(readlink "$kept_release" || true)
    make_release
    # One that has lost its Python is nothing to go back to.
    [[ -z $before || $before == "$release" ]] || starts "$before" || before=
    if [[ -f $pending ]]; then mapfile -t changed <"$pending"; fi
    write_files
    switch_to "$release"
    write_help
    if ! start_service; then
        [[ -n $before ]] && { [[ $before != "$release" ]] || is_told_more; } ||
            fail "the service does not come up; the lines above say why, and systemd keeps trying"
        say "the service does not come up: going back to ${before##*/} and to what it was told before"
        restore_environment
        roll_back_to "$before"
        [[ $before != "$release" ]] || fail "what is new in $env_file was not kept: the lines above say why; the agent runs as before"
        rm -rf "$top/previous" "$release"
        [[ -z $older || $older == "$before" ]] || link "$top/previous" "$older"
        fail "${release##*/} was not kept: the lines above say why; ${before##*/} runs again"
    fi
    forget_token
    [[ -z $before || $before == "$release" ]] || link "$top/previous" "$before"
    is_well  # after it: a forgotten token is nothing to start anew for
    prune_releases
    local tool
    for tool in buildctl railpack; do
        command -v "$tool" >/dev/null || say "$tool is not installed: repositories without a Dockerfile cannot be built on this server"
    done
    say "installed $("$top/bin/agent" --version); \`systemctl status $service\`, \`agent status\`, \`agent doctor\`"
}

# A release of before the socket asks Caddy at localhost:2019, and would not find it. What Caddy serves stays.
move_caddys_admin_back() {
    local socket=/run/techulus-caddy/admin.sock
    [[ -S $socket && ! -e $1/installer/caddy-admin.conf ]] || return 0
    if systemd_runs; then systemctl stop "$service"; fi  # the agent that runs would move it again
    python3 - "$socket" <<'PYTHON' || say "Caddy's admin API could not be moved back to localhost:2019; restart Caddy without its memory if routes stay old"
import socket, sys
body = b'"localhost:2019"'
head = f"PATCH /config/admin/listen HTTP/1.1\r\nHost:\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
with socket.socket(socket.AF_UNIX) as caddy:
    caddy.settimeout(10)
    caddy.connect(sys.argv[1])
    caddy.sendall(head.encode() + body)
    sys.exit(not caddy.recv(20).startswith(b"HTTP/1.1 200"))
PYTHON
}

roll_back_to() {
    ! is_proxy || move_caddys_admin_back "$1"
    switch_to "$1"
    write_help
    if systemd_runs; then
        systemctl daemon-reload
        restart_service || fail "${1##*/} does not come up either; the lines above say why"
    fi
    is_well
}

roll_back() {
    local to
    to=$(readlink "$top/previous" 2>/dev/null) || fail "there is no release to go back to"
    starts "$to" || fail "$to does not start here; nothing was changed"
    roll_back_to "$to"
    say "went back to ${to##*/}; install.sh --rollback again returns"
}

# The agent's own names for what this script has names for.
take_other_names() {
    CONTROL_PLANE_URL=${CONTROL_PLANE_URL:-${TECHULUS_URL-}}
    REGISTRATION_TOKEN=${REGISTRATION_TOKEN:-${TECHULUS_TOKEN-}}
    IS_PROXY=${IS_PROXY:-${TECHULUS_PROXY-}}
    LOGS_ENDPOINT=${LOGS_ENDPOINT:-${TECHULUS_LOGS_ENDPOINT-}}
}

main() {
    changed=() caddy_starts_anew=no
    local action=install_agent purge=no
    while [[ $# -gt 0 ]]; do
        case $1 in
        --packages) action=install_packages ;;
        --rollback) action=roll_back ;;
        --uninstall) action=uninstall ;;
        --purge) purge=yes ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; fail "unknown: $1" ;;
        esac
        shift
    done
    [[ $purge == no || $action == uninstall ]] || fail "--purge goes with --uninstall"
    check_system
    take_other_names
    scratch=$(mktemp -d) policy_is_ours=no
    trap 'rm -rf "$scratch"; forget_policy' EXIT
    case $action in
    install_agent) check_given; install_agent ;;
    uninstall) "$here/uninstall.sh" "$purge" ;;
    *) "$action" ;;
    esac
}

main "$@"
