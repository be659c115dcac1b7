#!/bin/sh
# A node: containerd and a kubelet, the first process of namespaces of its own (network, mounts, processes, host name), so that all of it ends
# with this. In flow, by the environment: NODE, ADDRESS/24, PLACES (below the root, of which it has its own), DIRECTORY (containerd.toml, kubelet.yaml, images/), KUBECONFIG, GATEWAY, SERVICE:443
# and SERVER for which it stands, KUBELET, CGROUP, LOOPBACK (the plugin).
set -eu
fail() { echo "machine: $*" >&2; exit 1; }
# In 60 s at most.
until_true() {
  what=$1; shift; tries=600
  until "$@" >/dev/null 2>&1; do
    tries=$((tries - 1)); [ $tries -gt 0 ] || fail "$what: not in time"
    sleep 0.1
  done
}

# What is bound into a pod's mounts must show the namespaces that are made later.
mount --make-rshared /
for place in $PLACES; do
  mkdir -p "$DIRECTORY/root/$place" "/$place"
  mount --bind "$DIRECTORY/root/$place" "/$place"
  mount --make-shared "/$place"
done
# A kubelet writes settings of the whole machine; it shall think so.
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  [ -e /proc/sys/$setting ] || continue
  mkdir -p "$DIRECTORY/settings/${setting%/*}"
  cat /proc/sys/$setting >"$DIRECTORY/settings/$setting"
  mount --bind "$DIRECTORY/settings/$setting" /proc/sys/$setting
done
hostname "$NODE"
cp "$LOOPBACK" /opt/cni/bin/loopback

until_true "the wire" ip link show eth0
ip link set lo up
ip addr add "$ADDRESS/24" dev eth0
ip link set eth0 up
ip route add default via "$GATEWAY"
# What kube-proxy would do for the one service that there is.
nft -f - <<NFT
table ip stand-in {
  chain output { type nat hook output priority -100; ip daddr $SERVICE tcp dport 443 dnat to $SERVER; }
  chain prerouting { type nat hook prerouting priority -100; ip daddr $SERVICE tcp dport 443 dnat to $SERVER; }
}
NFT

for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
  [ -e "$hierarchy/cgroup.procs" ] || continue
  mkdir -p "$hierarchy$CGROUP"
  for set in cpus mems; do
    [ ! -e "$hierarchy$CGROUP/cpuset.$set" ] || cat "$hierarchy/cpuset.$set" >"$hierarchy$CGROUP/cpuset.$set"
  done
done

containerd --config "$DIRECTORY/containerd.toml" >"$DIRECTORY/containerd.log" 2>&1 &
until_true containerd ctr version
for image in "$DIRECTORY"/images/*.tar; do
  ctr --namespace k8s.io images import "$image" >>"$DIRECTORY/import.log" 2>&1 || fail "importing $image: $(tail -n 1 "$DIRECTORY/import.log")"
done
# Never in a directory with files: where a runtime names no log, a kubelet removes what is in its own.
mkdir "$DIRECTORY/empty"
cd "$DIRECTORY/empty"
exec "$KUBELET" --config="$DIRECTORY/kubelet.yaml" --kubeconfig="$KUBECONFIG" --hostname-override="$NODE" --node-ip="$ADDRESS" \
  >"$DIRECTORY/kubelet.log" 2>&1
