#!/bin/bash
# Stop the cluster that cluster-start.sh started in FOLDER: its jobs, then its daemons, by the
# process ids that they left there. Nothing else is touched.
set -uo pipefail

folder=$(realpath -m "${1:?usage: cluster-stop.sh FOLDER}")
export SLURM_CONF=$folder/slurm.conf

jobs_left() {
  timeout 10 squeue --noheader --format=%A 2> /dev/null
}

# A zombie is dead: where process 1 reaps late, its number stays for a while.
alive() {
  case $(sed 's/.*) //' "/proc/$1/stat" 2> /dev/null) in "" | Z*) return 1 ;; esac
}

mapfile -t jobs < <(jobs_left)
if ((${#jobs[@]})); then
  timeout 10 scancel "${jobs[@]}"
  for _ in {1..75}; do
    [[ -z $(jobs_left) ]] && break
    sleep 0.2
  done
fi

for name in slurmd-n1 slurmd-n2 slurmctld munged; do
  [[ -s $folder/$name.pid ]] || continue
  pid=$(< "$folder/$name.pid")
  # The number may be another process's by now.
  [[ $(cat "/proc/$pid/comm" 2> /dev/null) == "${name%-n?}" ]] || continue
  kill -TERM "$pid"
  for _ in {1..100}; do
    alive "$pid" || break
    sleep 0.1
  done
  if alive "$pid"; then
    echo "$name ($pid) did not stop in 10 s: killed" >&2
    kill -KILL "$pid"
  fi
done
