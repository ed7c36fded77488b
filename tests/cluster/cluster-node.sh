#!/bin/bash
# Start the virtual node NODE of the cluster in FOLDER, which cluster-start.sh has made.
#
#   cluster-node.sh FOLDER NODE
#
# Its jobs see the cluster's hosts file, in a mount namespace of their own, where that is allowed.
set -euo pipefail

folder=$1
export SLURM_CONF=$folder/slurm.conf PATH=$PATH:/usr/sbin:/sbin
bind="mount --bind '$folder/hosts' /etc/hosts"
command=(slurmd -N "$2")
if unshare --mount --propagation private sh -c "$bind" 2> /dev/null; then
  command=(unshare --mount --propagation private sh -c "$bind && exec slurmd -N $2")
fi
# The daemon's output must not hold the caller's pipes open.
"${command[@]}" > /dev/null 2>> "$folder/log/start.log" < /dev/null
