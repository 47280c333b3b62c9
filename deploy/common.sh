# What installing and taking away share: where things are, how it is said, and what the service was told. Sourced, not run.
# shellcheck shell=bash disable=SC2034 # what is set here is used there
readonly top=/opt/techulus-agent service=techulus-agent.service
readonly etc=/etc/techulus
readonly env_file=$etc/agent.env unit=/etc/systemd/system/$service sysctl=/etc/sysctl.d/60-techulus-agent.conf
readonly command=/usr/local/bin/agent manual=/usr/local/share/man/man1/agent.1
readonly completion=/usr/share/bash-completion/completions/agent
readonly caddy_drop_in=/etc/systemd/system/caddy.service.d/techulus-agent.conf
readonly caddy_admin=/etc/systemd/system/caddy.service.d/techulus-agent-admin.conf

say() { echo "install: $*"; }
fail() { echo "install: $*" >&2; exit 1; }
systemd_runs() { [[ -d /run/systemd/system ]]; }

# The value of a variable in the service's file, without its quotes; empty when there is none.
told() {
    [[ -r $env_file ]] || return 0
    sed -n "s/^$1=//p" "$env_file" | tail -1 | sed 's/^"\(.*\)"$/\1/; s/\\\([\\"]\)/\1/g'
}

data_dir() {
    local path=${TECHULUS_DATA_DIR-}
    [[ -n $path ]] || path=$(told TECHULUS_DATA_DIR)
    echo "${path:-/var/lib/techulus-agent}"
}

# A process outside of this mount namespace that has a volume below the data folder mounted, empty when there is none. Podman 4.3 may have
# forgotten a container whose process lives, and lists it no more.
user_of_volumes() {
    local owner found space own
    own=$(readlink /proc/self/ns/mnt)
    for owner in "$1"/volumes/*/; do
        [[ -d $owner ]] || continue
        while IFS= read -r found; do
            found=${found%/mountinfo}
            space=$(readlink "$found/ns/mnt") || continue # it has ended
            [[ $space == "$own" ]] || { echo "${found#/proc/}" && return; }
        done < <(grep --files-with-matches --no-messages --extended-regexp \
            "^([^ ]+ ){3}[^ ]*/$(basename "$owner")/" /proc/[0-9]*/mountinfo)
    done
}
