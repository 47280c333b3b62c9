#!/usr/bin/env bash
# Takes the agent away: `install.sh --uninstall [--purge]` runs it, with "yes" for --purge and "no" without.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/common.sh"
purge=${1:-no}

# Stops containers, removes them, and returns whether their processes are gone, too: a forced removal in the middle of a stop would make
# Podman 4.3 forget the container and leave its process.
end_containers() {
    local group
    group=$(IFS='|' && echo "/libpod-($*)(\.scope)?(/|\$)")
    podman stop --ignore --time 10 "$@" >/dev/null 2>&1 || true
    podman rm --force --time 10 "$@" >/dev/null || return 1
    for _ in {1..50}; do
        grep --quiet --no-messages --extended-regexp "$group" /proc/[0-9]*/cgroup || return 0
        sleep 0.2
    done
    return 1
}

# The agent's chains of iptables, with the rules that lead into them.
end_firewall_rules() {
    local table rules chain
    command -v iptables >/dev/null || return 0
    for table in filter mangle; do
        rules=$(iptables -w 5 -t "$table" -S) || return 1
        sed -n 's/^-A \(.* -j TECHULUS-[A-Z]*\)$/-D \1/p' <<<"$rules" | xargs -r -L 1 iptables -w 5 -t "$table" || return 1
        while read -r chain; do
            iptables -w 5 -t "$table" -F "$chain" && iptables -w 5 -t "$table" -X "$chain" || return 1
        done < <(sed -n 's/^-N \(TECHULUS-[A-Z]*\)$/\1/p' <<<"$rules")
    done
}

# Containers of ours are those with a label that begins with techulus. (as the agent itself tells them). An interface of ours has the
# agent's mark in its folder; a network is ours where an agent has been and the addresses are those of the containers.
remove_what_it_made() {
    local network interface ours user data=$1
    network=$(told TECHULUS_NETWORK) network=${network:-techulus}
    interface=$(told TECHULUS_WIREGUARD_INTERFACE) interface=${interface:-wg0}
    if command -v podman >/dev/null; then
        # What cannot be listed, or removed, is not gone: nothing that containers use or write to is taken from under them.
        ours=$(podman ps --all --no-trunc --format '{{.ID}} {{range $name, $value := .Labels}}{{$name}} {{end}}') ||
            ! systemd_runs || fail "the containers could not be listed, so nothing of theirs was removed; the service is stopped"
        mapfile -t ours < <(awk '/ techulus\./ {print $1}' <<<"$ours")
        [[ ${#ours[@]} == 0 ]] || end_containers "${ours[@]}" ||
            fail "some containers could not be removed, so the rest was left: podman ps --all; the service is stopped"
    fi
    user=$(user_of_volumes "$data")
    [[ -z $user ]] || fail "process $user has a volume in $data mounted, so the rest was left; end it first; the service is stopped"
    if systemd_runs; then
        systemctl --quiet stop techulus-dnsmasq.service 2>/dev/null || true
        rm -f /run/systemd/system/techulus-dnsmasq.service /run/systemd/resolved.conf.d/techulus-internal.conf
        systemctl try-restart systemd-resolved.service 2>/dev/null || true
        [[ ! -e $data/wireguard/made-$interface ]] || ip link delete "$interface" 2>/dev/null || true
    fi
    if command -v podman >/dev/null; then
        if [[ -e $data/agent.lock ]] && podman network inspect --format '{{range .Subnets}}{{.Subnet}}{{end}}' "$network" 2>/dev/null | grep -q '^10\.200\.'; then
            podman network rm "$network" >/dev/null 2>&1 || true
        fi
    fi
    end_firewall_rules || say "some of the agent's firewall rules could not be removed: iptables-save | grep TECHULUS"
}

take_away() {
    [[ -e $top || -e $unit ]] || say "nothing is installed"
    local data
    data=$(data_dir)
    if systemd_runs; then
        systemctl --quiet disable --now "$service" 2>/dev/null || true
    else
        systemctl --quiet disable "$service" 2>/dev/null || true
    fi
    [[ $purge == no ]] || remove_what_it_made "$data"
    rm -rf "$top" "$unit" "$manual" "$completion" "$sysctl" "$caddy_drop_in"
    if grep -qs /run/techulus-caddy/ /etc/caddy/Caddyfile; then
        say "$caddy_admin is kept: the admin socket that /etc/caddy/Caddyfile names is in its folder"
    else
        rm -f "$caddy_admin"
    fi
    [[ $(readlink "$command") != "$top/bin/agent" ]] || rm -f "$command"
    rmdir --ignore-fail-on-non-empty "$(dirname "$caddy_drop_in")" 2>/dev/null || true
    systemd_runs && systemctl daemon-reload
    if [[ $purge == yes ]]; then
        [[ ! -e $data/agent.lock ]] || rm -rf "$data"
        rm -rf "$etc"
        say "uninstalled, with everything that the agent had made and kept"
    else
        say "uninstalled; containers and the tunnel go on, and $etc and $data are kept: install again to go on, or --uninstall --purge"
    fi
    exit 0  # nothing after this is read: this script itself may have been in what was removed
}

take_away
