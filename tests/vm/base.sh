#!/bin/bash
# Makes the disk that the virtual machines start from: a small Debian with
# systemd, a kernel and all that the package depends on, so that a test needs no
# network.
# usage: base.sh SUITE [NAME]      NAME is build/vm/base-SUITE unless it is named
#
# Writes NAME.disk (an ext4 file system), NAME.kernel, NAME.initrd, NAME.made
# and NAME.lock. What is there already, made by the same commands, is left as it
# is. Needs root.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd)
suite=${1:?usage: base.sh SUITE [NAME]}
name=${2:-$here/build/vm/base-$suite}
include=systemd,systemd-sysv,dbus,ffmpeg,ca-certificates,curl,procps,udev,iproute2,linux-image-cloud-amd64,initramfs-tools
size=3G

say() { echo "vm base: $*" >&2; }
die() {
	say "$*"
	exit 1
}

mkdir -p "$(dirname "$name")"
exec 9>"$name.lock" # two runs of the tests want it once
flock 9

made=$(sed '/^[[:space:]]*#/d' "$0" | sha256sum | cut -d' ' -f1)
if [ "$(cat "$name.made" 2>/dev/null)" = "$made" ]; then
	exit 0
fi
[ "$(id -u)" = 0 ] || die "making $name.disk needs root: run this with sudo"
for need in mmdebstrap mke2fs; do
	command -v $need >/dev/null || die "$need is missing: packaging/setup.sh vm installs it"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || die "$keyring is missing: apt install debian-archive-keyring"
mirror=$("$here/packaging/mirror.sh")

work=$(mktemp -d "$name.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# What is done in the tree before it becomes a disk. An emulated processor is
# slow: the initial RAM disk holds what finds the disk and no more, and what a
# machine for tests has no use for does not start.
cat >"$work/finish" <<'END'
set -eu
tree=$1
printf '%s\n' virtio_pci virtio_blk ext4 >"$tree/etc/initramfs-tools/modules"
echo MODULES=list >"$tree/etc/initramfs-tools/conf.d/vm.conf"
chroot "$tree" update-initramfs -u
chroot "$tree" systemctl mask getty.target systemd-resolved.service systemd-networkd.service systemd-timesyncd.service \
	systemd-logind.service systemd-pstore.service systemd-hwdb-update.service e2scrub_reap.service e2scrub_all.timer fstrim.timer \
	apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
	modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service modprobe@fuse.service modprobe@loop.service
chroot "$tree" systemctl set-default multi-user.target
echo appliance >"$tree/etc/hostname"
: >"$tree/etc/machine-id"
# Waiting for udev to have seen the disks would be half of the boot: they are
# there when the root file system is.
echo '/dev/vda / ext4 errors=remount-ro 0 0' >"$tree/etc/fstab"
mkdir -p "$tree/srv/vm"
# It answers when the file systems are there, whatever becomes of the rest.
cat >"$tree/etc/systemd/system/vm-agent.service" <<'UNIT'
[Unit]
Description=Carries out what the tests ask for
DefaultDependencies=no
After=systemd-remount-fs.service systemd-tmpfiles-setup-dev.service
Before=basic.target
Conflicts=shutdown.target
Before=shutdown.target
StartLimitIntervalSec=0

[Service]
ExecStartPre=/bin/sh -c 'mountpoint -q /srv/vm || mount -o ro /dev/vdb /srv/vm'
ExecStartPre=/bin/sh -c 'modprobe virtio_net; i=0; until ip link show eth0 >/dev/null 2>&1 || [ $((i += 1)) -gt 100 ]; do sleep 0.1; done'
ExecStartPre=/sbin/ip addr replace 10.0.2.15/24 dev eth0
ExecStartPre=/sbin/ip link set eth0 up
ExecStart=/srv/vm/agent
Restart=always
RestartSec=1
OOMScoreAdjust=-1000
KillMode=process

[Install]
WantedBy=sysinit.target
UNIT
chroot "$tree" systemctl enable vm-agent.service
END

say "making $suite with $include"
mmdebstrap --quiet --mode=root --variant=minbase --include="$include" \
	--aptopt='Acquire::Languages "none"' \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook="sh '$work/finish' \"\$1\"" \
	"$suite" "$work/tree" "deb [signed-by=$keyring] $mirror $suite main" >&2
chmod 755 "$work/tree"

cp -L "$work/tree"/boot/vmlinuz-* "$work/kernel"
cp -L "$work/tree"/boot/initrd.img-* "$work/initrd"
rm -rf "$work/tree"/var/cache/apt/archives/*.deb
# The journal of Debian's size, and no table left for the first boot to write.
mke2fs -q -F -t ext4 -E lazy_itable_init=0,lazy_journal_init=0 -d "$work/tree" "$work/disk" $size

rm -f "$name.made"
for part in disk kernel initrd; do
	mv "$work/$part" "$name.$part"
done
echo "$made" >"$name.made"
say "$suite: $(du -h "$name.disk" | cut -f1) in $name.disk, kernel $(du -h "$name.kernel" | cut -f1), initial RAM disk $(du -h "$name.initrd" | cut -f1)"
