#!/bin/bash
# Start a SLURM cluster of two virtual nodes, n1 and n2, on this machine:
#
#   [BASE_PORT=26817] [CPUS=2] cluster-start.sh FOLDER
#
# munged, slurmctld and two slurmd, with all their state below the new FOLDER; cluster-stop.sh ends
# them. FOLDER/environment lists the variables (KEY=VALUE) that SLURM's commands need. Takes about a
# second. Listens on BASE_PORT, + 1 and + 2.
set -euo pipefail

folder=$(realpath -m "${1:?usage: cluster-start.sh FOLDER}")
base=${BASE_PORT:-26817}
cpus=${CPUS:-2}
here=$(cd "$(dirname "$0")" && pwd)
host=$(hostname -s)
user=$(id -un)
export PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$(dirname "$folder")"
mkdir "$folder" # fails if it exists: two clusters must not share one
mkdir -p "$folder"/{state,log,spool/n1,spool/n2}

# Job ids begin at a number that follows the ports: Lightning derives its rendezvous port from them.
cat > "$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$base
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock,cred_expire=5
FirstJobId=$((base % 9000 + 1))
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
EnforcePartLimits=ALL
MailProg=/bin/true
KillWait=5
SlurmdTimeout=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool/%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + 1)) CPUs=$cpus RealMemory=4000
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((base + 2)) CPUs=$cpus RealMemory=4000
PartitionName=test Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
CONF
export SLURM_CONF=$folder/slurm.conf
echo "SLURM_CONF=$SLURM_CONF" > "$folder/environment"

give_up() {
  {
    echo "the cluster does not start: $1"
    tail -n 20 "$folder"/log/*.log
  } >&2
  "$here/cluster-stop.sh" "$folder" >&2
  exit 1
}

# The daemons' output must not hold the caller's pipes open.
start() {
  "$@" > /dev/null 2>> "$folder/log/start.log" < /dev/null
}

(umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")
# By force: munged wants its socket open to all users, and a folder of tests is closed to others.
start munged --force --key-file="$folder/munge.key" --socket="$folder/munge.sock" \
  --pid-file="$folder/munged.pid" --seed-file="$folder/munge.seed" \
  --log-file="$folder/log/munged.log" || give_up "munged"
start slurmctld -c || give_up "slurmctld"

# The first node's name is the ranks' meeting place (MASTER_ADDR). Jobs see a hosts file that knows
# it; where that is not allowed they get the address.
{
  cat /etc/hosts
  echo "127.0.0.1 n1 n2"
} > "$folder/hosts"
unshare --mount true 2> /dev/null || echo "MASTER_ADDR=127.0.0.1" >> "$folder/environment"
for node in n1 n2; do
  "$here/cluster-node.sh" "$folder" "$node" || give_up "slurmd $node"
done

for _ in {1..150}; do
  idle=$(sinfo --noheader --Node --format=%T 2> /dev/null | grep -c '^idle$' || true)
  [[ $idle == 2 ]] && exit 0
  sleep 0.2
done
give_up "its nodes are not idle after 30 s; are the ports $base to $((base + 2)) taken? \
(BASE_PORT=N takes others)"
