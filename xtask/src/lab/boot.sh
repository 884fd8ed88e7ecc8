# Boots systemd in namespaces of its own (mounts, processes, control groups): $1 a folder to work in, $2 the binary, $3 the
# node's configuration (a folder), $4 the node's name, $5 the project. What is written goes to memory, and away with it.
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
root=$1/root
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
# systemd empties some of them when it starts.
for folder in run tmp var/tmp dev; do mount -t tmpfs -o mode=1777 tmpfs "$root/$folder"; done
chmod 755 "$root/run" "$root/dev"
mkdir "$root/dev/net" "$root/dev/shm"
for device in null zero full random urandom tty net/tun; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done

# Of all that this machine would start, mount or set, nothing.
: >"$root/etc/fstab"
for folder in "$root"/etc/systemd/system "$root"/usr/lib/systemd/system/*.wants "$root"/usr/lib/systemd/system-generators; do
    mount -t tmpfs tmpfs "$folder"
done

# What docs/security.md says.
install -m 755 /dev/null "$root/usr/bin/evergate"
mount --bind "$2" "$root/usr/bin/evergate"
install -m 644 "$5/dist/evergate@.service" "$root/etc/systemd/system/"
install -m 644 "$5/dist/evergate.sysusers.conf" "$root/usr/lib/sysusers.d/evergate.conf"
mkdir -p "$root/etc/evergate"
cp "$3"/* "$root/etc/evergate/"
chroot "$root" systemd-sysusers
chroot "$root" sh -c 'chgrp -R evergate /etc/evergate && chmod -R g=rX,o= /etc/evergate'

printf '[Unit]\nDescription=A node\nWants=systemd-journald.service evergate@%s.service\n' "$4" >"$root/etc/systemd/system/lab.target"
head -c16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$root/etc/machine-id"
mkdir "$root/old"
cd "$root"
pivot_root . old
umount -l /old
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=lab.target --log-target=console --show-status=no
