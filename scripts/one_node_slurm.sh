#!/usr/bin/env bash
# A real SLURM with accounting on this machine alone, for tests: no systemd, no cgroups, everything it writes in one folder.
#
#   scripts/one_node_slurm.sh start DIR    then: export SLURM_CONF=DIR/slurm.conf
#   scripts/one_node_slurm.sh stop DIR
#
# It needs root, and installs Debian's or Ubuntu's packages where they are missing. Where that is not possible it says
# so and ends with 77.
set -euo pipefail

action=${1:?start or stop}
folder=$(realpath -m "${2:?a folder for its files}")

cannot() {
    echo "one_node_slurm: no SLURM can be started here: $1" >&2
    exit 77
}

install_packages() {
    if command -v slurmctld slurmd slurmdbd munged mariadbd >/dev/null; then return; fi
    command -v apt-get >/dev/null || cannot "slurmctld is not installed, and there is no apt-get to install it"
    apt-get update -qq || cannot "apt-get update fails"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        slurm-wlm slurmdbd mariadb-server munge >/dev/null || cannot "apt-get cannot install slurm-wlm"
}

# Ports of its own, and the node's name and cores.
write_configs() {
    local host cores memory
    host=$(hostname -s) cores=$(nproc) memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.8)}' /proc/meminfo)
    cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SlurmctldPort=16817
SlurmdPort=16818
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=1,sched_interval=2
MpiDefault=none
ReturnToService=2
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=16819
JobAcctGatherType=jobacct_gather/none
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=low Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=sudden Nodes=$host MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=0
PartitionName=high Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
END
    cat >"$folder/slurmdbd.conf" <<END
AuthType=auth/munge
DbdHost=localhost
DbdPort=16819
SlurmUser=root
PidFile=$folder/slurmdbd.pid
LogFile=$folder/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=16820
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
END
    chmod 600 "$folder/slurmdbd.conf"
}

start_database() {
    mariadb-install-db --no-defaults --user=root --auth-root-authentication-method=normal \
        --datadir="$folder/database" >"$folder/database.log" 2>&1
    mariadbd --no-defaults --user=root --datadir="$folder/database" --socket="$folder/database.sock" \
        --bind-address=127.0.0.1 --port=16820 --pid-file="$folder/mariadbd.pid" >>"$folder/database.log" 2>&1 &
    local sql=(mariadb --no-defaults --socket="$folder/database.sock")
    patiently "${sql[@]}" -e "select 1"
    "${sql[@]}" -e "create database slurm_acct_db; create user slurm@'%' identified by 'slurm';
        create user slurm@localhost identified by 'slurm'; grant all on slurm_acct_db.* to slurm@'%';
        grant all on slurm_acct_db.* to slurm@localhost;"
}

patiently() {
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.2
    done
    echo "one_node_slurm: this never came true: $*" >&2
    return 1
}

start() {
    [ "$(id -u)" = 0 ] || cannot "it takes root"
    install_packages
    mkdir -p "$folder/state" "$folder/spool"
    write_configs
    export SLURM_CONF=$folder/slurm.conf
    if ! munge -n >/dev/null 2>&1; then
        [ -s /etc/munge/munge.key ] || mungekey --create
        install -d -o munge -g munge -m 755 /run/munge
        runuser -u munge -- munged
        touch "$folder/own_munged"
    fi
    patiently munge -n
    start_database
    slurmdbd
    patiently sacctmgr -n list cluster
    sacctmgr -i add cluster test >/dev/null 2>&1 || true
    slurmctld -f "$SLURM_CONF" -c
    patiently scontrol ping
    slurmd -f "$SLURM_CONF" -c
    patiently sh -c "sinfo -h -o %t | grep -q idle"
    echo "export SLURM_CONF=$SLURM_CONF"
}

stop() {
    export SLURM_CONF=$folder/slurm.conf
    scancel --user=root >/dev/null 2>&1 || true
    for _ in $(seq 50); do [ -z "$(squeue -h 2>/dev/null)" ] && break || sleep 0.2; done
    for daemon in slurmd slurmctld slurmdbd mariadbd; do
        if [ -s "$folder/$daemon.pid" ]; then kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true; fi
    done
    if [ -e "$folder/own_munged" ]; then kill "$(cat /run/munge/munged.pid)" 2>/dev/null || true; fi
}

"$action"
