#!/bin/sh
# Becomes systemd-nspawn with a machine in it, and with it systemd as PID 1.
# usage: boot.sh GROUP DIR BASE [OPTION…]
#
# GROUP is a control group to make, DIR holds upper, work and root of an
# overlay over BASE, OPTIONs are systemd-nspawn's. It runs in a mount
# namespace of its own, which takes the overlay away with the last process.
set -eu
group=$1 dir=$2 base=$3
shift 3

# systemd wants a group that it may divide; where the host has the old
# hierarchies, too, one in each that nspawn hands on.
all=/sys/fs/cgroup
[ ! -d $all/unified ] || all="$all/unified $all/systemd"
for hierarchy in $all; do
	mkdir -p "$hierarchy/$group"
	echo $$ >"$hierarchy/$group/cgroup.procs"
done

mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --directory="$dir/root" --boot --register=no --keep-unit \
	--private-network --console=pipe --machine=appliance "$@"
